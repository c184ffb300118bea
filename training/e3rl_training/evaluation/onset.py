"""Erasing from the onset: of a segment that would be erased, what stands in front of the spike stays.

The spike begins with the first token whose smoothed surprisal (F2) is above the segment's threshold [ours]. Where none
is, the segment is unsure as a whole, and goes as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from e3rl_core.policy import HealingPolicy
from e3rl_core.uncertainty import SurprisalMeter, Uncertainty
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.client import Drawn, Server
from e3rl_training.evaluation.continuing import joined, other_end, size
from e3rl_training.evaluation.problems import Asked


async def heal_from_onset(
    server: Server, source: Source, asked: Asked, *, room: int, policy: HealingPolicy, seed_of: Callable[[int], int]
) -> Drawn:
    """An answer healed as the server would, but for the part of an erased segment that stays.

    That part becomes a segment of its own, and what is drawn behind it is judged alone, against a threshold that grows
    with each erasure (F5). At most `max_erasures` follow one another; budgets do not bind, and what was drawn behind an
    erased segment does not count. `seed_of` tells a seed by a request's number.

    Raises:
        EvaluationError: as `other_end`.
    """
    seeds = map(seed_of, count())
    drawn = await server.draw(source, asked.prompt, room=room, rate=0.0, seed=next(seeds), ids=True)
    erased: Counter[int] = Counter()
    erasures = at = attempt = 0
    while at < len(drawn.segments):
        segment = drawn.segments[at]
        assert segment.threshold is not None, "a server that heals tells it"
        bar = segment.threshold * policy.threshold.gamma**attempt
        if attempt == policy.max_erasures or segment.u <= bar:
            at, attempt = at + 1, 0
            continue
        scores = list(_scored(drawn, at, policy))
        if kept := next((place for place, one in enumerate(scores) if one.max > bar), 0):
            drawn, at = _split(drawn, at, kept, scores[kept - 1].u), at + 1
        erased[at] += drawn.segments[at].tokens
        end = await other_end(server, source, drawn, at, room=room, seed=next(seeds))
        drawn = joined(drawn, at, end)
        erasures, attempt = erasures + 1, attempt + 1
    segments = (one.model_copy(update={"erased": erased[at]}) for at, one in enumerate(drawn.segments))
    return replace(drawn, erased=erased.total(), erasures=erasures, segments=tuple(segments))


def _scored(drawn: Drawn, at: int, policy: HealingPolicy) -> Iterator[Uncertainty]:
    """What segment `at` comes to with each of its tokens, alone."""
    (start, _), (stop, _) = size(drawn, at), size(drawn, at + 1)
    meter = SurprisalMeter(policy.uncertainty)
    for logprob in drawn.logprobs[start:stop]:
        meter.feed(-logprob)
        yield meter.read(None)


def _split(drawn: Drawn, at: int, tokens: int, u: float) -> Drawn:
    """The same answer, whose segment `at` is two: its first so many tokens, of that U, and the rest."""
    (start, _), whole = size(drawn, at), drawn.segments[at]
    chars = sum(map(len, drawn.pieces[start : start + tokens]))
    head = whole.model_copy(update={"tokens": tokens, "chars": chars, "u": u})
    tail = whole.model_copy(update={"tokens": whole.tokens - tokens, "chars": (whole.chars or 0) - chars})
    return replace(drawn, segments=(*drawn.segments[:at], head, tail, *drawn.segments[at + 1 :]))
