"""Intervals over problems, pass@k, AUROC, and what a rival would reach at another price: pure, on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 4000
#: Two-sided, in percent.
_TAILS = (2.5, 97.5)
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def dump(self) -> dict[str, float]:
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


class Bootstrap:
    """Problems drawn again with replacement, the same ones for everything measured: so differences are paired.

    Args:
        problems: how many there are.
        seed: of the resamples.
    """

    def __init__(self, problems: int, seed: int, resamples: int = RESAMPLES) -> None:
        stream = np.random.default_rng(seed)
        counts = np.empty((resamples, problems), np.uint16)
        for row in range(0, resamples, _CHUNK):  # the generator's own counts are four times as wide
            part = counts[row : row + _CHUNK]
            part[:] = stream.multinomial(problems, np.full(problems, 1 / problems), size=len(part))
        self._counts = counts

    def means(self, values: Array) -> Array:
        """Means of resamples: (problems, ..) to (resamples, ..)."""
        found: Array = np.tensordot(self._counts, values, 1) / len(values)
        return found

    def interval(self, values: Array) -> Interval:
        """Of the mean of values, one a problem."""
        return interval(float(values.mean()), self.means(values))


def interval(mean: float, resampled: Array) -> Interval:
    """The percentile interval of a statistic whose resamples are at hand."""
    low, high = np.percentile(resampled, _TAILS)
    return Interval(mean, float(low), float(high))


def pass_at(k: int, drawn: int, right: int) -> float:
    """Probability that one of k draws is right, of `drawn` of which `right` are: without bias (Chen et al., 2021).

    k is at most `drawn`.
    """
    return 1.0 - math.comb(drawn - right, k) / math.comb(drawn, k)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Probability that a positive scores above a negative, ties counting half; None where either is empty."""
    if not positive or not negative:
        return None
    scores = np.asarray([*positive, *negative])
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # of ties the mean
    above = rank[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


@dataclass(frozen=True, slots=True)
class Curve:
    """A rival that can be had at several prices: it asks for its next size on as many problems as the price allows."""

    right: Array
    """(problems, sizes)."""
    tokens: Array
    """(problems, sizes), rising in the mean."""

    @classmethod
    def of(cls, right: Array, tokens: Array) -> Curve:
        """Of all sizes, (problems, sizes), those that are worth mixing.

        They are the upper concave envelope of the means: two draws that must agree buy nothing, and a rival that had
        to pass by them on its way to three would be made to look worse than it is.
        """
        price, gain = tokens.mean(0), right.mean(0)
        kept: list[int] = []
        for size in np.lexsort((-gain, price)):
            if kept and gain[size] <= gain[kept[-1]]:
                continue
            while len(kept) > 1 and _slope(price, gain, kept[-2], kept[-1]) <= _slope(price, gain, kept[-1], size):
                kept.pop()
            kept.append(int(size))
        return cls(right[:, kept], tokens[:, kept])

    def at(self, price: float) -> float:
        """Accuracy at so many tokens a problem; beyond either end that of the end."""
        return _mixed(price, self.tokens.mean(0), self.right.mean(0))

    def paid(self, price: float) -> float:
        """What it pays there: the price, or its own where it has no size as dear or as cheap."""
        tokens = self.tokens.mean(0)
        return float(np.clip(price, tokens[0], tokens[-1]))

    def resampled(self, bootstrap: Bootstrap, prices: Array) -> Array:
        """Accuracies at the prices of the same resamples: (resamples,)."""
        tokens, right = bootstrap.means(self.tokens), bootstrap.means(self.right)
        return np.asarray([_mixed(*row) for row in zip(prices, tokens, right, strict=True)])


def _slope(price: Array, gain: Array, one: int, other: int) -> float:
    return float((gain[other] - gain[one]) / (price[other] - price[one]))


def _mixed(price: float, tokens: Array, right: Array) -> float:
    """In a resample a size may cost no more than a smaller one; it is then taken to cost as much."""
    return float(np.interp(price, np.maximum.accumulate(tokens), right))


def reliability(scores: Sequence[float], right: Sequence[bool], bins: int = 8) -> list[dict[str, Any]]:
    """Accuracy by quantile bins of a score: the score's mean, the accuracy and the count of each bin, rising."""
    order = np.argsort(np.asarray(scores), kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [
        {
            "u": round(float(np.mean([scores[i] for i in part])), 4),
            "accuracy": round(float(np.mean([right[i] for i in part])), 4),
            "draws": len(part),
        }
        for part in parts
    ]
