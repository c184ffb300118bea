"""The statistics of the training comparison."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.training.__main__ import summarise, tokens_to
from benchmarks.training.arms import ARMS, TASK, settings
from benchmarks.training.memory import fit
from benchmarks.training.one_run import Budget, Graded, Run, run
from e3rl_core.policy import HealingPolicy
from e3rl_training.config import E3RLConfig
from e3rl_training.tasks import TASKS
from e3rl_training.warmup import POLICIES, WarmUp
from e3rl_training.wordproblems import problems


def result(arm: str, seed: int, sampled: float, **more: Any) -> dict[str, Any]:
    points = [{"tokens": 0.0, "sampled": 0.4}, {"tokens": 100.0, "sampled": sampled}]
    same = {"policy": "modchain-s1", "greedy": sampled, "erase_precision": None, "erase_recall": None}
    more = {"zero_variance": 0.1, "erased_share": 0.2, "training_seconds": 1.0, "peak_mib": 100, **more}
    return {"arm": arm, "seed": seed, "sampled": sampled, "points": points, **same, **more}


@pytest.mark.parametrize(("target", "expected"), [(0.5, 50.0), (0.6, 100.0), (0.7, 250.0), (0.9, None)])
def test_tokens_to_a_target_lie_on_the_line_between_points(target: float, expected: float | None) -> None:
    points = [(0.0, 0.4), (100.0, 0.6), (200.0, 0.6), (300.0, 0.8)]
    found = tokens_to([{"tokens": t, "sampled": s} for t, s in points], target)
    assert found == (None if expected is None else pytest.approx(expected))


def test_differences_are_paired_by_seed() -> None:
    runs = [result("grpo", seed, 0.5 + seed / 10) for seed in range(3)]
    runs += [result("unbiased", seed, 0.6 + seed / 10 + seed / 1000) for seed in range(3)]
    found = summarise(runs)["modchain-s1"]
    assert found["unbiased"]["sampled_minus_grpo"]["mean"] == pytest.approx(0.101)
    assert found["unbiased"]["sampled_minus_grpo"]["significant"]
    assert "sampled_minus_grpo" not in found["grpo"]
    assert found["grpo"]["tokens_to_target"]["reached"] == 2


def test_what_varies_is_not_significant() -> None:
    runs = [result("grpo", seed, 0.5) for seed in range(3)]
    runs += [result("unbiased", seed, value) for seed, value in enumerate((0.3, 0.9, 0.5))]
    assert not summarise(runs)["modchain-s1"]["unbiased"]["sampled_minus_grpo"]["significant"]


def test_a_straight_line_is_fitted() -> None:
    found = fit([1.0, 2.0, 3.0], [12.0, 14.0, 16.0])
    assert found == pytest.approx({"slope": 2.0, "intercept": 10.0, "r_squared": 1.0})


@pytest.mark.parametrize("task", TASK)
def test_every_arm_is_a_configuration_for_every_task(task: str, tmp_path: Path) -> None:
    assert task in TASKS
    for arm in ARMS:
        args = E3RLConfig(**settings(arm, task), output_dir=str(tmp_path))
        assert args.generation_batch_size % args.num_generations == 0
        assert args.healing_policy().max_erasures == 2


@pytest.mark.parametrize(("anneal", "shares"), [(True, [0.25, 0.5, 1.0]), (False, [0.0, 0.0, 0.0])])
def test_annealing_ends_with_plain_rollouts_alone(anneal: bool, shares: list[float]) -> None:
    budget = Budget(100, lambda seed: 0.5, anneal=anneal)
    args, control = SimpleNamespace(plain_fraction=0.0), SimpleNamespace(should_training_stop=False)
    seen = []
    for drawn in (25, 25, 60):
        budget.on_log(args, None, control, {"e3rl/drawn_tokens": drawn})
        seen.append(args.plain_fraction)
    assert seen == shares
    assert control.should_training_stop


def test_first_draws_are_graded_as_they_are_drawn() -> None:
    """Right kept, wrong erased (its redraw does not count), wrong kept."""
    problem = next(one for one in problems(20, steps=3, seed=0) if len(one.steps) == 3)
    first, second, third, _ = problem.solution.splitlines(keepends=True)
    segments = [(0, 0, first, True), (1, 0, "1+1=3\n", False), (1, 1, second, True), (2, 0, third[:-1] + "0\n", True)]
    text, draws = "", []
    for segment, attempt, tokens, kept in segments:
        draws.append(SimpleNamespace(segment=segment, attempt=attempt, start=len(text), tokens=tokens, kept=kept))
        text += tokens if kept else ""
    inner: Any = SimpleNamespace(sample=lambda *_, **__: [SimpleNamespace(tokens=text, draws=draws)] * 2)
    tokenizer = SimpleNamespace(decode=lambda tokens, **_: tokens)
    graded = Graded(inner, tokenizer, {(1, 2): problem})
    policies = [HealingPolicy(mode="on"), HealingPolicy(mode="shadow")]  # plain rows erase nothing, and are left out
    graded.sample([[1, 2], [1, 2]], policies)
    assert graded.labels.rates() == {"erase_precision": 1.0, "erase_recall": 0.5}


def test_arms_are_compared_at_one_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E3RL_CACHE", str(tmp_path))
    monkeypatch.setitem(POLICIES, "modchain-s1", WarmUp(noise=0.16, updates=60))
    arms = ("grpo", "grpo_t0.7")
    points = [run(Run(arm, "modchain-s1", 0, tokens=1, steps=1), tmp_path / arm)["points"] for arm in arms]
    assert points[0][0] == points[1][0]
    assert 0 < points[0][0]["sampled"] < 1
