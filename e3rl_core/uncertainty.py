"""Token surprisals to segment uncertainty: formulas F1-F3, incrementally, one float at a time."""

from __future__ import annotations

from dataclasses import dataclass

from e3rl_core.policy import UncertaintyWeights


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """One segment's uncertainty and its parts, all in nats (F3 [reported]; weights [ours])."""

    u: float
    mean: float
    max: float
    slope: float
    """Mean of this segment minus mean of the kept segment before it; 0 for the first."""


class SurprisalMeter:
    """Accumulates one draw's surprisals c_t (F1 [paper], nats) and smooths them (F2 [reported]).

    O(1) per token and in memory. Start a fresh meter at every checkpoint: smoothing does not look past one.
    """

    __slots__ = ("_highest", "_rho", "_smoothed", "_total", "_weights", "count")

    def __init__(self, weights: UncertaintyWeights) -> None:
        self._weights = weights
        self._rho = weights.smoothing
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self._total = 0.0
        self._highest = 0.0
        self._smoothed = 0.0

    def feed(self, surprisal: float) -> None:
        """Add one token's surprisal in nats: c~_t = rho c~_(t-1) + (1-rho) c_t, started at c_1."""
        smoothed = surprisal if self.count == 0 else self._rho * self._smoothed + (1.0 - self._rho) * surprisal
        self._smoothed = smoothed
        self._total += smoothed
        self.count += 1
        if smoothed > self._highest:
            self._highest = smoothed

    def read(self, previous_mean: float | None) -> Uncertainty:
        """F3: U = w_mean mean(c~) + w_max max(c~) + w_rise max(0, mean - previous_mean).

        `previous_mean` is the mean of the kept segment before, nats; None for the first segment.

        Raises:
            ValueError: no token was fed.
        """
        if not self.count:
            raise ValueError("a segment without tokens has no uncertainty")
        mean = self._total / self.count
        slope = 0.0 if previous_mean is None else mean - previous_mean
        weights = self._weights
        u = weights.mean * mean + weights.max * self._highest + weights.rise * max(0.0, slope)
        return Uncertainty(u=u, mean=mean, max=self._highest, slope=slope)
