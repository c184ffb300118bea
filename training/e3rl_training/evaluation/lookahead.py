"""Looking ahead: where a segment would be erased several are drawn, and the one is kept that goes on best.

A candidate is a segment and the one behind it, its look-ahead: what is wrong may be written surely, and show in what
follows. It is judged by the mean surprisal of all its tokens [ours]. The look-ahead's alone would be none where the
answer ends with the segment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from statistics import fmean

from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.client import Drawn, Server
from e3rl_training.evaluation.continuing import joined, other_end, size
from e3rl_training.evaluation.problems import Asked

#: Segments of a candidate.
_SPAN = 2


async def look_ahead(
    server: Server, source: Source, asked: Asked, *, room: int, policy: HealingPolicy, seed_of: Callable[[int], int]
) -> Drawn:
    """An answer whose flagged segments are each the best of `source.candidates`, the flagged draw among them.

    At most `max_erasures` candidates are given up at a segment, each at the price of its own tokens: what a client
    draws behind them does not count. Behind the chosen one the answer goes on as it was drawn, since nothing there had
    a part in the choice; the look-ahead may be flagged in its turn. `seed_of` tells a seed by a request's number.

    Raises:
        EvaluationError: as `other_end`.
    """
    seeds = map(seed_of, count())
    drawn = await server.draw(source, asked.prompt, room=room, rate=0.0, seed=next(seeds), ids=True)
    others = min(source.candidates - 1, policy.max_erasures)
    erasures = at = 0
    while at < len(drawn.segments):
        if drawn.segments[at].flagged:
            ends = [await other_end(server, source, drawn, at, room=room, seed=next(seeds)) for _ in range(others)]
            drawn = _chosen(drawn, at, ends)
            erasures += others
        at += 1
    return replace(drawn, erased=sum(one.erased for one in drawn.segments), erasures=erasures)


def _chosen(drawn: Drawn, at: int, ends: Sequence[Drawn]) -> Drawn:
    """The answer with the best candidate for segment `at`, of equals the one drawn first; with what the others cost."""
    candidates = [drawn, *(joined(drawn, at, end) for end in ends)]
    best = min(candidates, key=lambda one: _surprisal(one, at))
    given_up = [segment for one in candidates if one is not best for segment in one.segments[at : at + _SPAN]]
    (_, start), (_, stop) = size(drawn, at), size(drawn, at + 1)
    first = {"flagged": True, "first": drawn.text[start:stop]}
    kept = best.segments[at].model_copy(update={**first, "erased": sum(one.tokens for one in given_up)})
    return replace(
        best,
        segments=(*best.segments[:at], kept, *best.segments[at + 1 :]),
        seconds=drawn.seconds + sum(end.seconds for end in ends),
    )


def _surprisal(drawn: Drawn, at: int) -> float:
    """Mean over the candidate that begins with segment `at`, nats."""
    (start, _), (stop, _) = size(drawn, at), size(drawn, at + _SPAN)
    return -fmean(drawn.logprobs[start:stop])
