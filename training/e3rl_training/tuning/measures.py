"""What a setting is worth: how much more often it is right than plain sampling would be for the same tokens.

Plain sampling can be had at several prices, by votes over more draws. At a price between two of them it votes on as
many problems as the price allows. So what a token is worth need not be said: a setting that draws half as many again
has to be right more often than votes for as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e3rl_training.evaluation.arms import Arm, Source
from e3rl_training.evaluation.measures import Result, Samples, curve_of, minus, result_of
from e3rl_training.evaluation.plan import Plan
from e3rl_training.evaluation.rules import Thresholds
from e3rl_training.evaluation.statistics import Bootstrap, Curve, Interval


def plain_sizes(samples: Samples, plan: Plan, source: Source) -> list[Result]:
    """Plain sampling at all prices that a plan's draws allow: one draw, majority votes, and draws until two agree."""
    votes = [Arm(source, rule, draws) for rule in ("majority", "agree") for draws in range(2, plan.samples + 1)]
    return [result_of(arm, samples, plan, Thresholds()) for arm in (Arm(source), *votes)]


def first(result: Result, problems: int) -> Result:
    """An arm on the first so many problems."""
    parts = (result.right, result.committed, result.erased, result.draws)
    return Result(*(part[:problems] for part in parts))


def gain(result: Result, rival: Curve) -> float:
    """Of one arm over a rival at the arm's price, accuracy."""
    return float(result.right.mean()) - rival.at(float(result.tokens.mean()))


def comparison(arms: Mapping[str, Result], plain: list[Result], tuned: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """Arms on the same problems: each alone, its gain over plain sampling, and the tuned one minus it.

    Args:
        arms: by name.
        plain: the sizes of plain sampling, on the same problems.
        tuned: the name of the arm that all are compared with.
        bootstrap: over the problems.
    """
    mixture, ours = curve_of(plain), arms[tuned]
    found: dict[str, Any] = {}
    for name, result in arms.items():
        found[name] = {
            "accuracy": bootstrap.interval(result.right).dump(),
            "tokens": round(float(result.tokens.mean()), 2),
            "erased_tokens": round(float(result.erased.mean()), 2),
            "gain": _tested(minus(result, mixture, bootstrap)),
        }
        if name != tuned:
            found[name]["tuned_minus_this"] = _tested(bootstrap.interval(ours.right - result.right))
    return found


def _tested(difference: Interval) -> dict[str, Any]:
    return {**difference.dump(), "significant": difference.excludes_zero}
