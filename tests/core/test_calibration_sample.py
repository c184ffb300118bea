"""Calibration from a sample: statistics by segment, and the k that gives a wanted erase rate."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from e3rl_core.calibration import QUANTILES, k_for_rate, quantile, rate_at, spread, statistics_of
from e3rl_core.healer import Healer
from e3rl_core.policy import HealingPolicy, ThresholdRule
from e3rl_core.profile import Profile
from e3rl_core.threshold import Moments, critical_ks
from e3rl_core.uncertainty import Uncertainty


def score(u: float) -> Uncertainty:
    return Uncertainty(u=u, mean=u / 2, max=u * 2, slope=-u)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_quantiles_are_numpys(share: float) -> None:
    values = [random.Random(share).gauss(1.0, 2.0) for _ in range(17)]
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)))


def test_a_spread_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0, 6.0])
    assert (found.mean, found.std) == (3.0, pytest.approx(math.sqrt(3.5)))
    assert found.quantiles["0.5"] == 2.5
    assert list(found.quantiles) == [str(share) for share in QUANTILES]


def test_statistics_are_by_segment_index_and_responses_may_be_short() -> None:
    first, second = statistics_of([[score(1.0), score(4.0)], [score(3.0)]])
    assert (first.draws, second.draws) == (2, 1)
    assert (first.u.mean, first.mean.mean, first.max.mean, first.slope.mean) == (2.0, 1.0, 4.0, -2.0)
    assert (second.u.mean, second.u.std) == (4.0, 0.0)


def test_no_response_has_no_statistics() -> None:
    assert statistics_of([]) == ()


def shadowed(surprisals: list[float], profile: Profile, k: float) -> tuple[list[float], list[bool]]:
    """U of each segment of two tokens, and whether a healer in shadow mode would have erased it under this k."""
    threshold = {"k": k, "floor": 0.4}
    policy = HealingPolicy().updated({"mode": "shadow", "segment": {"tokens": 2}, "threshold": threshold})
    healer = Healer(policy, profile)
    verdicts = [healer.feed(0, surprisal, final=False) for surprisal in surprisals]
    commits = [verdict for verdict in verdicts if hasattr(verdict, "draw")]
    return [commit.draw.uncertainty.u for commit in commits], [commit.reason is not None for commit in commits]


@pytest.mark.parametrize("seed", range(5))
def test_the_critical_k_is_where_the_healer_changes_its_mind(seed: int) -> None:
    noise = random.Random(seed)
    profile = Profile(mean=(1.0, 1.3), std=(0.4, 0.6))
    surprisals = [noise.expovariate(1.0) for _ in range(24)]
    us, _ = shadowed(surprisals, profile, 1.0)
    rule = ThresholdRule(floor=0.4)
    critical = critical_ks(us, [profile.prior(segment) for segment in range(len(us))], rule)
    for k in (-1.0, 0.0, 0.5, 1.5, 3.0):
        assert shadowed(surprisals, profile, k)[1] == [one > k for one in critical]


def test_what_lies_below_the_floor_is_never_erased() -> None:
    assert critical_ks([0.2], [Moments(0.1, 0.01)], ThresholdRule(floor=0.3)) == [-math.inf]


@pytest.mark.parametrize(("u", "k"), [(2.0, math.inf), (1.0, -math.inf), (0.5, -math.inf)])
def test_without_spread_no_k_matters(u: float, k: float) -> None:
    assert critical_ks([u], [Moments(1.0, 0.0)], ThresholdRule(floor=0.3)) == [k]


@pytest.mark.parametrize(("rate", "k"), [(0.0, 4.0), (0.25, 3.0), (0.49, 3.0), (0.5, 2.0), (1.0, -10.0)])
def test_the_k_of_a_rate(rate: float, k: float) -> None:
    critical = [1.0, 2.0, 3.0, 4.0]
    assert k_for_rate(critical, rate) == k
    assert rate_at(critical, k) <= rate


def test_a_k_is_rounded_upwards_and_stays_in_bounds() -> None:
    assert k_for_rate([1.23456789], 0.0) == 1.2346
    assert k_for_rate([math.inf], 0.0) == 1e9
    assert k_for_rate([-math.inf], 0.0) == -10.0


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_rate_is_met_and_never_exceeded(rate: float) -> None:
    critical = [random.Random(1).gauss(0.0, 1.0) for _ in range(1)] + [i / 7 for i in range(200)]
    reached = rate_at(critical, k_for_rate(critical, rate))
    assert rate - 0.01 <= reached <= rate
