"""Shadow continuations: some erased draws finished to the end, to learn what they would have come to [ours].

Their rewards are true returns of erased draws: they tell how often the erase rule was right, and they can be trained on
as siblings on a shared prefix.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from e3rl_core.engines.torch_rollout import Rollout, RolloutDraw


@dataclass(frozen=True, slots=True)
class Continuation:
    """An erased draw and what followed it."""

    row: int
    """The response it was erased from."""
    start: int
    """Tokens of that response in front of it."""
    tokens: tuple[int, ...]
    """The draw's own and those that followed. (_T,)"""
    logprobs: tuple[float, ...]
    """(_T,), sampling-time, nats."""
    drawn: int = 0
    """Tokens that were sampled for it, so without the erased draw's own."""

    def completion(self, response: Rollout) -> list[int]:
        """The whole text it makes with the prefix it shares."""
        return [*response.tokens[: self.start], *self.tokens]


def choose(rollouts: Sequence[Rollout], fraction: float, seed: int) -> list[tuple[int, RolloutDraw]]:
    """Each erased draw with chance `fraction`, with the row it belongs to."""
    stream = random.Random(seed)
    return [
        (row, draw)
        for row, rollout in enumerate(rollouts)
        for draw in rollout.draws
        if not draw.kept and stream.random() < fraction
    ]


def finish(
    chosen: Sequence[tuple[int, RolloutDraw]],
    prompts: Sequence[Sequence[int]],
    rollouts: Sequence[Rollout],
    *,
    sample: Callable[[list[list[int]]], list[Rollout]],
    max_tokens: int,
    eos_ids: Sequence[int],
) -> list[Continuation]:
    """Sample what follows each chosen draw, up to `max_tokens` of the whole response.

    A draw that had ended its response is whole as it is.
    """
    open_draws = [
        place
        for place, (_, draw) in enumerate(chosen)
        if draw.tokens[-1] not in eos_ids and draw.start + len(draw.tokens) < max_tokens
    ]
    contexts = []
    for place in open_draws:
        row, draw = chosen[place]
        contexts.append([*prompts[row], *rollouts[row].tokens[: draw.start], *draw.tokens])
    rests = dict(zip(open_draws, sample(contexts) if contexts else [], strict=True))
    continued = []
    for place, (row, draw) in enumerate(chosen):
        room = max_tokens - draw.start
        rest = rests.get(place)
        tokens = (*draw.tokens, *(rest.tokens if rest else ()))
        logprobs = (*draw.logprobs, *(rest.logprobs if rest else ()))
        drawn = len(rest.tokens) if rest else 0
        continued.append(Continuation(row, draw.start, tokens[:room], logprobs[:room], drawn))
    return continued
