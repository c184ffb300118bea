"""Learning what is normal: moments of U and erase rates by segment index, while a model trains or from a sample of it.

`Calibrator` learns from a stream of draws; the functions below it from responses that erased nothing (shadow mode).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from e3rl_core.profile import DEFAULT_PRIOR, Profile, SegmentStatistics, Spread
from e3rl_core.threshold import Moments
from e3rl_core.uncertainty import Uncertainty


class _Index(BaseModel):
    """Decayed sums over the FIRST draws of one segment index: redraws are selected, and would drag it down."""

    weight: float = 0.0
    first: float = 0.0
    second: float = 0.0
    seen: int = 0
    judged: list[float] = Field(default_factory=list)
    """Decayed count of draws at attempt 0, 1, ..: how many were held against a threshold ..."""
    erased: list[float] = Field(default_factory=list)
    """.. and how many of them exceeded it."""


def _moments(indices: Sequence[_Index], prior: Moments, prior_draws: float) -> Moments:
    """Moments over some indices, with the prior counted as so many further draws."""
    weight = sum(index.weight for index in indices) + prior_draws
    if weight == 0:
        return prior
    first = (sum(index.first for index in indices) + prior_draws * prior.mean) / weight
    second = (sum(index.second for index in indices) + prior_draws * (prior.std**2 + prior.mean**2)) / weight
    return Moments(max(0.0, first), math.sqrt(max(0.0, second - first * first)))


class Calibrator(BaseModel):
    """Moments of U by segment index [ours]. Its JSON is its whole state: a resumed run goes on bit for bit."""

    model_config = ConfigDict(extra="forbid")

    decay: float = Field(0.9, gt=0.0, le=1.0, description="What a batch's weight is multiplied by at each `age`.")
    prior_draws: float = Field(8.0, ge=0.0, description="Pseudo-draws of any index that each one counts.")
    indices: list[_Index] = Field(default_factory=list)

    def age(self) -> None:
        """A new batch begins: what was learned so far counts less."""
        for index in self.indices:
            index.weight *= self.decay
            index.first *= self.decay
            index.second *= self.decay
            index.judged = [value * self.decay for value in index.judged]
            index.erased = [value * self.decay for value in index.erased]

    def see(self, segment: int, attempt: int, u: float, exceeded: bool) -> None:
        """One draw: its uncertainty, nats, and whether it exceeded the threshold it was held against."""
        while len(self.indices) <= segment:
            self.indices.append(_Index())
        index = self.indices[segment]
        while len(index.judged) <= attempt:
            index.judged.append(0.0)
            index.erased.append(0.0)
        index.judged[attempt] += 1.0
        index.erased[attempt] += float(exceeded)
        if attempt == 0:
            index.weight += 1.0
            index.first += u
            index.second += u * u
            index.seen += 1

    def moments(self, segment: int) -> Moments:
        """Moments of U at an index, shrunk to those over all indices: late segments are rare."""
        pooled = _moments(self.indices, DEFAULT_PRIOR, 0.0)
        return _moments(self.indices[segment : segment + 1], pooled, self.prior_draws)

    def erase_rates(self, segment: int, attempts: int) -> list[float]:
        """P(U > Theta_a) at attempts 0 .. `attempts` - 1; an attempt never seen has the last seen one's rate."""
        rates: list[float] = []
        for attempt in range(attempts):
            judged = self.indices[segment].judged if segment < len(self.indices) else []
            seen = attempt < len(judged) and judged[attempt] > 0
            last = rates[-1] if rates else 0.0
            rates.append(self.indices[segment].erased[attempt] / judged[attempt] if seen else last)
        return rates

    @property
    def draws(self) -> int:
        """First draws seen."""
        return sum(index.seen for index in self.indices)

    def profile(
        self,
        model: str | None = None,
        settings: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> Profile | None:
        """What was learned, as the profile to score against; None before the first draw."""
        learned = [self.moments(segment) for segment in range(len(self.indices))]
        if not learned:
            return None
        return Profile(
            model=model,
            mean=tuple(moments.mean for moments in learned),
            std=tuple(moments.std for moments in learned),
            segments=self.draws,
            settings=settings or {},
            provenance=provenance or {},
        )


# --- from a sample of responses that erased nothing -------------------------------------------------------------------

#: Shares at which a profile tells quantiles.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def statistics_of(responses: Sequence[Sequence[Uncertainty]]) -> tuple[SegmentStatistics, ...]:
    """What was seen at each segment index, from the scores of each response's segments, (_B, _S)."""
    longest = max(map(len, responses), default=0)
    found = []
    for segment in range(longest):
        draws = [response[segment] for response in responses if segment < len(response)]
        parts = {name: spread([getattr(one, name) for one in draws]) for name in ("u", "mean", "max", "slope")}
        found.append(SegmentStatistics(draws=len(draws), **parts))
    return tuple(found)


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation (of the sample itself, over n) and `QUANTILES`."""
    mean = sum(values) / len(values)
    return Spread(
        mean=mean,
        std=math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)),
        quantiles={str(share): quantile(values, share) for share in QUANTILES},
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the others lie below, linear between two neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def k_for_rate(critical: Sequence[float], rate: float) -> float:
    """The least k, to four places, at which at most `rate` of the draws are erased at first sight.

    Args:
        critical: each draw's k below which it is erased (`threshold.critical_ks`).
        rate: from 0 to 1.
    """
    ordered = sorted(critical, reverse=True)
    allowed = math.floor(rate * len(ordered) + 1e-9)
    k = ordered[allowed] if allowed < len(ordered) else -math.inf
    low, high = _K_BOUNDS
    return min(high, max(low, k)) if not low < k < high else math.ceil(k * 1e4) / 1e4


def rate_at(critical: Sequence[float], k: float) -> float:
    """The share of draws that are erased at first sight under this k."""
    return sum(one > k for one in critical) / len(critical)


#: Of `ThresholdRule.k`.
_K_BOUNDS = (-10.0, 1e9)
