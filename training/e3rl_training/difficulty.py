"""Leaving out problems that teach nothing: those the starting policy always or never solves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tqdm.auto import tqdm

from e3rl_core.errors import DataError

#: Problems whose responses are drawn at once.
_AT_ONCE = 32


def solve_rates(
    problems: Sequence[dict[str, Any]], samples: int, mean_rewards: Callable[[list[dict[str, Any]]], list[float]]
) -> list[float]:
    """Mean first reward of `samples` plain responses to each problem, in order.

    `mean_rewards` gives the reward of one sampled response per problem it is given.
    """
    rates = []
    for start in tqdm(range(0, len(problems), _AT_ONCE), desc="measuring difficulty", unit="batch", leave=False):
        part = problems[start : start + _AT_ONCE]
        rewards = mean_rewards([problem for problem in part for _ in range(samples)])
        rates += [math.fsum(rewards[i * samples : (i + 1) * samples]) / samples for i in range(len(part))]
    return rates


def within(rates: Sequence[float], low: float, high: float) -> list[int]:
    """Indices of problems whose rate is within the bounds.

    Raises:
        DataError: none is.
    """
    kept = [index for index, rate in enumerate(rates) if low <= rate <= high]
    if not kept:
        mean = math.fsum(rates) / len(rates) if rates else 0.0
        raise DataError(
            f"difficulty: no problem has a solve rate from {low} to {high} (their mean is {mean:.2f}); "
            "widen difficulty.low and difficulty.high, or use other data"
        )
    return kept
