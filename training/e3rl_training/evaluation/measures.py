"""From samples to figures. The same samples give the same figures: there is no clock in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from e3rl_training.evaluation.arms import Arm, Source
from e3rl_training.evaluation.plan import Plan
from e3rl_training.evaluation.rules import CUT_QUANTILE, GATE_QUANTILE, RULES, Thresholds, single
from e3rl_training.evaluation.samples import Key, Sample
from e3rl_training.evaluation.statistics import Array, Bootstrap, Curve, Interval, auroc, interval, pass_at, reliability

Samples = Mapping[Key, Sample]


@dataclass(frozen=True, slots=True)
class Result:
    """An arm on the reported problems: arrays with one entry a problem, means over the orders of its draws."""

    right: Array
    committed: Array
    erased: Array
    draws: Array

    @property
    def tokens(self) -> Array:
        return self.committed + self.erased


def erase_rate(samples: Samples, plan: Plan, source: Source) -> float:
    """Erased draws of a segment over all draws of segments."""
    found = [samples[key] for key in plan.keys(source)]
    erased = sum(sample.erasures for sample in found)
    drawn = erased + sum(len(sample.segments) for sample in found)
    return erased / drawn if drawn else 0.0


def thresholds(samples: Samples, plan: Plan, source: Source) -> Thresholds:
    """Quantiles over the first draws on the calibration problems."""
    found = [samples[key] for key in plan.calibrating(source)]
    mean = [sample.u for sample in found if sample.u is not None]
    peak = [max(segment.u for segment in sample.segments) for sample in found if sample.segments]
    if not mean or not peak:
        return Thresholds()
    return Thresholds(float(np.quantile(mean, GATE_QUANTILE)), float(np.quantile(peak, CUT_QUANTILE)))


def result_of(arm: Arm, samples: Samples, plan: Plan, limits: Thresholds) -> Result:
    """An arm's outcomes. A rule sees the pool in every cyclic order: each is as good as fresh draws in that order.

    One that forks sees each draw with its own forks, which are as good as fresh ones of that draw.
    """
    decide = single if arm.rule is None else RULES[arm.rule].decide
    pool = plan.pool(arm.source)
    rows = []
    for problem in plan.reported:
        draws = [samples[arm.source.name, problem, draw] for draw in range(pool)]
        behind = [draw.forks if arm.forks else (*draws[at + 1 :], *draws[:at]) for at, draw in enumerate(draws)]
        orders = [[draw, *others][: arm.draws] for draw, others in zip(draws, behind, strict=True)]
        outcomes = [decide(order, limits) for order in orders]
        rows.append(np.mean([(one.right, one.committed, one.erased, one.draws) for one in outcomes], axis=0))
    return Result(*np.asarray(rows, dtype=np.float64).T)


class Measurement:
    """All figures of an evaluation whose samples are complete."""

    def __init__(self, plan: Plan, samples: Samples, seed: int) -> None:
        self.plan = plan
        self._samples = samples
        self._bootstrap = Bootstrap(len(plan.reported), seed)
        gated = dict.fromkeys(arm.source for arm in plan.arms if arm.gated)  # a set has another order in each process
        self._limits = {source: thresholds(samples, plan, source) for source in gated}
        others = {"minus_plain": plan.base, "minus_healed": plan.healed}
        self._others = {key: other for key, other in others.items() if other is not None}
        self.results = {arm: self._result(arm) for arm in plan.arms}
        self.curves = self._curves()

    def report(self) -> dict[str, Any]:
        """The measured part of `report.json`."""
        found: dict[str, Any] = {
            "problems": len(self.plan.reported),
            "calibration_problems": len(self.plan.calibration),
            "samples": self.plan.samples,
            "compared_with": {key: other.name for key, other in self._others.items()},
            "arms": {arm.name: self._arm(arm) for arm in self.plan.arms},
            "at_healed_tokens": self._at_healed_tokens(),
            "uncertainty": self._uncertainty(),
            "thresholds": {
                source.name: {"gate": round(one.gate, 4), "cut": round(one.cut, 4)}
                for source, one in self._limits.items()
            },
            "erase_rates": {
                source.name: round(erase_rate(self._samples, self.plan, source), 4)
                for source in self.plan.sources
                if source.heals
            },
        }
        found["curves"] = {
            name: [
                {"tokens": round(float(tokens), 2), "accuracy": round(float(right), 4)}
                for tokens, right in zip(curve.tokens.mean(0), curve.right.mean(0), strict=True)
            ]
            for name, curve in self.curves.items()
        }
        return found

    def draws(self, source: Source) -> list[Sample]:
        """All draws of a source on the reported problems."""
        reported = set(self.plan.reported)
        return [self._samples[key] for key in self.plan.keys(source) if key[1] in reported]

    def _result(self, arm: Arm) -> Result:
        return result_of(arm, self._samples, self.plan, self._limits.get(arm.source, Thresholds()))

    def _arm(self, arm: Arm) -> dict[str, Any]:
        result = self.results[arm]
        found: dict[str, Any] = {
            "accuracy": self._bootstrap.interval(result.right).dump(),
            "tokens": round(float(result.tokens.mean()), 2),
            "committed_tokens": round(float(result.committed.mean()), 2),
            "erased_tokens": round(float(result.erased.mean()), 2),
            "draws": round(float(result.draws.mean()), 3),
        }
        for key, other in self._others.items():
            if other != arm:
                difference = self._bootstrap.interval(result.right - self.results[other].right)
                found[key] = {**difference.dump(), "significant": difference.excludes_zero}
        if arm.rule is None:
            found |= self._single(arm.source)
        return found

    def _single(self, source: Source) -> dict[str, Any]:
        """What only single draws have."""
        draws, pool = self.draws(source), self.plan.pool(source)
        k = min(self.plan.samples, pool)
        right = dict.fromkeys(self.plan.reported, 0)
        for draw in draws:
            right[draw.problem] += draw.right
        return {
            "pass": {"k": k, "mean": round(float(np.mean([pass_at(k, pool, count) for count in right.values()])), 4)},
            "ungradable": sum(not draw.gradable for draw in draws),
            "cut_by_length": sum(draw.finish == "length" for draw in draws),
            "of_draws": len(draws),
        }

    def _curves(self) -> dict[str, Curve]:
        """Every arm at its price, and every rule at all prices that it can be had at without another draw."""
        curves = {}
        for arm in self.plan.arms:
            if arm.rule is None:
                curves[arm.name] = curve_of([self.results[arm]])
                continue
            alike = [other.draws for other in self.plan.arms if (other.rule, other.source) == (arm.rule, arm.source)]
            sizes = [self._result(Arm(arm.source, arm.rule, draws)) for draws in range(1, max(alike) + 1)]
            curves[arm.family] = curve_of(sizes)
        return curves

    def _at_healed_tokens(self) -> dict[str, Any]:
        """Healed minus each rival, where the rival's price is brought to healed's own."""
        if self.plan.healed is None:
            return {}
        healed = self.results[self.plan.healed]
        price = float(healed.tokens.mean())
        rivals = {}
        for name, curve in self.curves.items():
            if name.endswith(self.plan.healed.name):  # itself, or a vote that begins with it
                continue
            difference = minus(healed, curve, self._bootstrap)
            rivals[name] = {
                "accuracy": round(curve.at(price), 4),
                "tokens": round(curve.paid(price), 2),
                "healed_minus_this": {**difference.dump(), "significant": difference.excludes_zero},
            }
        return {"tokens": round(price, 2), "rivals": rivals}

    def _uncertainty(self) -> dict[str, Any]:
        """How well U tells wrong answers, by source: of single draws whose server told it."""
        found = {}
        for source in self.plan.sources:
            scored = [(draw.u, draw.right) for draw in self.draws(source) if draw.u is not None]
            if scored:
                us, rights = [u for u, _ in scored], [right for _, right in scored]
                rank = auroc([u for u, right in scored if not right], [u for u, right in scored if right])
                found[source.name] = {
                    "auroc_of_wrong": None if rank is None else round(rank, 4),
                    "reliability": reliability(us, rights),
                }
        return found


def minus(result: Result, rival: Curve, bootstrap: Bootstrap) -> Interval:
    """How much more often an arm is right than a rival at the arm's own price."""
    theirs = rival.resampled(bootstrap, bootstrap.means(result.tokens))
    ours = float(result.right.mean()) - rival.at(float(result.tokens.mean()))
    return interval(ours, bootstrap.means(result.right) - theirs)


def curve_of(sizes: Sequence[Result]) -> Curve:
    """A rival that can be had in several sizes."""
    return Curve.of(np.stack([one.right for one in sizes], 1), np.stack([one.tokens for one in sizes], 1))


def latencies(plan: Plan, samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds from request to answer and to its first text, by source: of single requests, under their common load.

    First text is of the answers that were streamed. Provisional text that is erased later counts as a first token.
    """
    found = {}
    for source in plan.sources:
        drawn = [samples[key] for key in plan.keys(source)]
        times = {
            "answer": [one.seconds for one in drawn],
            "first_token": [one.first_token for one in drawn if one.first_token is not None],
            "first_committed": [one.first_committed for one in drawn if one.first_committed is not None],
        }
        found[source.name] = {name: _times(seconds) for name, seconds in times.items() if seconds}
    return found


def _times(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "answers": len(seconds),
        "median": round(float(np.median(seconds)), 3),
        "p95": round(float(np.quantile(seconds, 0.95)), 3),
    }
