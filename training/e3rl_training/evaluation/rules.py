"""One answer of several draws, and the tokens it would have cost: pure functions of a problem's draws, in order.

Draws of one source are independent of each other, so an ordered pool is drawn once and every rule reads from it as many
as it would have asked for: what it pays is exact, and nothing is drawn twice. Forks of a draw are no part of the pool:
they are read behind that draw alone, in the order they came. A draw without an answer has no vote.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from e3rl_training.evaluation.samples import Sample

#: Of the first draws on calibration problems: their mean U, above which `gated` goes on.
GATE_QUANTILE = 0.5
#: Likewise of the U of their least certain segment, above which `confident` breaks a draw off.
CUT_QUANTILE = 0.9


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From calibration problems; nats."""

    gate: float = math.inf
    cut: float = math.inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule answers, and what it paid. Tokens."""

    right: bool
    committed: int
    erased: int
    draws: int


@dataclass(frozen=True, slots=True)
class Rule:
    decide: Callable[[Sequence[Sample], Thresholds], Outcome]
    what: str
    gated: bool = False
    """Whether it needs thresholds."""
    forks: bool = False
    """Whether what it reads behind the first draw are that draw's forks, not other draws of the pool."""


def single(draws: Sequence[Sample], _: Thresholds) -> Outcome:
    """The first draw."""
    return _outcome(draws[0], draws[:1])


def majority(draws: Sequence[Sample], _: Thresholds) -> Outcome:
    """The most frequent answer; of equals the one drawn first."""
    return _outcome(_leader(draws), draws)


def best(draws: Sequence[Sample], _: Thresholds) -> Outcome:
    """The draw of the highest mean log-probability."""
    return _outcome(max(draws, key=lambda draw: draw.logprob), draws)


def agree(draws: Sequence[Sample], thresholds: Thresholds) -> Outcome:
    """Draw until two answers agree or there are no more draws; then the most frequent answer."""
    for used, draw in enumerate(draws, 1):
        if agreed(draws[:used]):
            return _outcome(draw, draws[:used])
    return majority(draws, thresholds)


def agreed(draws: Sequence[Sample]) -> bool:
    """Whether two answers are the same."""
    answers = [draw.answer for draw in draws if draw.answer]
    return len(set(answers)) < len(answers)


def gated(draws: Sequence[Sample], thresholds: Thresholds) -> Outcome:
    """The first draw where it is sure enough; else `agree`."""
    u = draws[0].u
    assert u is not None
    return agree(draws, thresholds) if u > thresholds.gate else single(draws, thresholds)


def confident(draws: Sequence[Sample], thresholds: Thresholds) -> Outcome:
    """Break a draw off after its first segment that is too unsure; the others vote with weights exp(-U).

    After DeepConf (arXiv 2508.15260), simplified: U by segment instead of the confidence of sliding windows over top-k
    log-probabilities, and no early end by consensus. The last draw is never broken off where none has come through.
    """
    through: list[Sample] = []
    committed = erased = 0
    for place, draw in enumerate(draws, 1):
        spent = _until_cut(draw, thresholds.cut)
        if spent is None or (place == len(draws) and not through):
            spent = draw.committed, draw.erased
            through.append(draw)
        committed, erased = committed + spent[0], erased + spent[1]
    return Outcome(_leader(through, _weight).right, committed, erased, len(draws))


RULES = {
    "majority": Rule(majority, "the most frequent of N answers"),
    "best": Rule(best, "of N answers the one of the highest mean log-probability"),
    "agree": Rule(agree, "draw until two answers agree, at most N times"),
    "gated": Rule(gated, "draw once; where its mean U is high, as `agree`", gated=True),
    "forked": Rule(gated, "likewise, but further draws fork from the first", gated=True, forks=True),
    "confident": Rule(confident, "N draws, unsure ones broken off, votes weighted by confidence", gated=True),
}


def _weight(draw: Sample) -> float:
    assert draw.u is not None
    return math.exp(-draw.u)


def _leader(draws: Sequence[Sample], weight: Callable[[Sample], float] = lambda _: 1.0) -> Sample:
    """The first draw with the answer of most weight; the first of all where none has an answer."""
    votes: defaultdict[str, float] = defaultdict(float)
    first: dict[str, Sample] = {}
    for draw in draws:
        if draw.answer:
            votes[draw.answer] += weight(draw)
            first.setdefault(draw.answer, draw)
    return first[max(votes, key=votes.__getitem__)] if votes else draws[0]


def _until_cut(draw: Sample, cut: float) -> tuple[int, int] | None:
    """Tokens committed and erased up to the end of the first segment above `cut`; None if there is none."""
    committed = erased = 0
    for segment in draw.segments:
        committed, erased = committed + segment.tokens, erased + segment.erased
        if segment.u > cut:
            return committed, erased
    return None


def _outcome(chosen: Sample, paid: Sequence[Sample]) -> Outcome:
    return Outcome(chosen.right, sum(one.committed for one in paid), sum(one.erased for one in paid), len(paid))
