"""Baseline and adaptive threshold: formulas F4-F5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from e3rl_core.policy import ThresholdRule


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of U, nats."""

    mean: float
    std: float

    def bar(self, k: float) -> float:
        """The bar mu + k sigma."""
        return self.mean + k * self.std


class OwnHistory:
    """Decayed moments of this response's kept U, shrunk to a prior (F4, own part [ours])."""

    __slots__ = ("_decay", "_first", "_second", "_total", "_weight", "kept")

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._weight = self._first = self._second = 0.0
        self._total = 0.0
        self.kept = 0

    def add(self, u: float) -> None:
        self._weight = self._weight * self._decay + 1.0
        self._first = self._first * self._decay + u
        self._second = self._second * self._decay + u * u
        self._total += u
        self.kept += 1

    @property
    def mean(self) -> float | None:
        """Plain mean of all kept U, for phi; None before the first."""
        return self._total / self.kept if self.kept else None

    def shrunk(self, prior: Moments, prior_segments: float) -> Moments:
        """Moments with the prior counted as `prior_segments` further segments."""
        weight = self._weight + prior_segments
        first = (self._first + prior_segments * prior.mean) / weight
        second = (self._second + prior_segments * (prior.std**2 + prior.mean**2)) / weight
        return Moments(first, math.sqrt(max(0.0, second - first * first)))


class GroupHistory:
    """First-draw U of the siblings of one request with n > 1, by segment (F4, group part [reported])."""

    __slots__ = ("_by_segment",)

    def __init__(self) -> None:
        self._by_segment: list[dict[int, float]] = []

    def add(self, segment: int, member: int, u: float) -> None:
        """Record `member`'s FIRST draw of `segment`: redraws are selected, and would drag the baseline down."""
        while len(self._by_segment) <= segment:
            self._by_segment.append({})
        self._by_segment[segment].setdefault(member, u)

    def without(self, segment: int, member: int, lone_std: float) -> Moments | None:
        """Leave-one-out moments at `segment`; None while no sibling has been there, `lone_std` if only one has."""
        if segment >= len(self._by_segment):
            return None
        others = [u for sibling, u in self._by_segment[segment].items() if sibling != member]
        if not others:
            return None
        mean = sum(others) / len(others)
        if len(others) == 1:
            return Moments(mean, lone_std)
        return Moments(mean, math.sqrt(sum((u - mean) ** 2 for u in others) / (len(others) - 1)))


def baseline(own: Moments, group: Moments | None, rule: ThresholdRule) -> float:
    """F4: beta = (1-g)(mu + k sigma)_own + g (mu + k sigma)_group, nats; without a group, the own part alone."""
    if group is None:
        return own.bar(rule.k)
    return (1.0 - rule.group_weight) * own.bar(rule.k) + rule.group_weight * group.bar(rule.k)


def modulation(history_mean: float | None, prior: Moments, rule: ThresholdRule) -> float:
    """F5: phi = clip(mean U_(<n) / mu_prior, 0.5, 2)^eta, at first 1: a response that runs hot is judged so."""
    if history_mean is None or prior.mean <= 0:
        return 1.0
    return float(min(2.0, max(0.5, history_mean / prior.mean)) ** rule.eta)


def threshold(beta: float, history_mean: float | None, prior: Moments, erasures: int, rule: ThresholdRule) -> float:
    """F5: Theta = max(floor, beta phi gamma^e), nats."""
    return max(rule.floor, beta * modulation(history_mean, prior, rule) * rule.gamma**erasures)


def critical_ks(us: Sequence[float], priors: Sequence[Moments], rule: ThresholdRule) -> list[float]:
    """For each segment of a response that erased nothing: the k below which its draw would have been erased [ours].

    Only k is free in F4 and F5 there, since no k changes what was kept: U > Theta is k < (U / phi - mu) / sigma.

    Args:
        us: U of segment 0, 1, .., nats.
        priors: what the profile expects there.
        rule: whose k is left open.
    """
    own = OwnHistory(rule.decay)
    found = []
    for u, prior in zip(us, priors, strict=True):
        moments, phi = own.shrunk(prior, rule.prior_segments), modulation(own.mean, prior, rule)
        above = u / phi - moments.mean
        if u <= rule.floor or above == 0:
            found.append(-math.inf)
        else:
            found.append(above / moments.std if moments.std > 0 else math.copysign(math.inf, above))
        own.add(u)
    return found
