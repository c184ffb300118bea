from __future__ import annotations

import subprocess
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from e3rl_core.events import BudgetOp, CommittedOp, ErasedOp, RetrySpec, Score
from e3rl_core.healer import Limit, Reason
from e3rl_server.metrics import Metrics
from tests.deploy.tools import tool


def score(u: float) -> Score:
    return Score(u=u, mean=u, max=u, slope=0.0)


def erased(attempt: int = 0, segment: int = 0) -> ErasedOp:
    return ErasedOp(
        segment=segment, attempt=attempt, tokens=8, uncertainty=score(3.0), threshold=1.0, reason=Reason.UNCERTAINTY,
        retry=RetrySpec(attempt=attempt + 1), recomputed=1,
    )  # fmt: skip


def committed(**fields: object) -> CommittedOp:
    defaults = {
        "segment": 0, "attempt": 1, "tokens": 6, "uncertainty": score(1.0), "threshold": 1.2, "attempts": 2,
        "first_u": 3.0, "erased_tokens": 8,
    }  # fmt: skip
    return CommittedOp.model_validate({**defaults, **fields})


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_an_erasure_and_its_commit(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe([erased(), committed()], time.time() - 2.0, "on")
    value = registry.get_sample_value
    assert value("e3rl_segments_total", {"outcome": "erased"}) == 1
    assert value("e3rl_segments_total", {"outcome": "committed"}) == 1
    assert value("e3rl_erasures_total", {"reason": "uncertainty"}) == 1
    assert value("e3rl_committed_tokens_total") == 6
    assert value("e3rl_erased_tokens_total") == 8
    assert value("e3rl_rollback_recomputed_tokens_total") == 1
    assert value("e3rl_attempts_per_segment_sum") == 2
    assert value("e3rl_uncertainty_drop_nats_bucket", {"le": "2.0"}) == 1
    assert value("e3rl_uncertainty_drop_nats_bucket", {"le": "1.0"}) == 0
    first = value("e3rl_time_to_first_committed_token_seconds_sum")
    assert first == pytest.approx(2.0, abs=0.5)


def test_a_forced_commit_and_its_budget(metrics: Metrics, registry: CollectorRegistry) -> None:
    forced = committed(reason=Reason.UNCERTAINTY, limit=Limit.ERASED_TOKENS)
    metrics.observe([BudgetOp(budget=Limit.ERASED_TOKENS), forced])
    assert registry.get_sample_value("e3rl_segments_total", {"outcome": "forced"}) == 1
    assert registry.get_sample_value("e3rl_budget_exhausted_total", {"budget": "erased_tokens"}) == 1
    assert registry.get_sample_value("e3rl_shadow_erasures_total") == 0


def test_what_shadow_would_have_erased(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe([committed(attempts=1, reason=Reason.UNCERTAINTY)], time.time(), "shadow")
    assert registry.get_sample_value("e3rl_shadow_erasures_total") == 1
    assert registry.get_sample_value("e3rl_segments_total", {"outcome": "committed"}) == 1
    assert registry.get_sample_value("e3rl_time_to_first_committed_token_seconds_count") == 0


def test_promtool_has_nothing_to_say(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe([erased(), committed()], time.time(), "on")
    check = subprocess.run([tool("promtool"), "check", "metrics"], input=generate_latest(registry), capture_output=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")


def test_every_metric_is_documented_and_well_named(metrics: Metrics, registry: CollectorRegistry) -> None:
    families = list(registry.collect())
    assert len(families) == 12
    for family in families:
        assert family.documentation.endswith(".")
        assert family.name.startswith("e3rl_")
        assert {len(sample.labels.keys() - {"le"}) for sample in family.samples} <= {0, 1}
