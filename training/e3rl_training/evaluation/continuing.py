"""Other ends of a draw: its first segments are kept, and the rest is drawn anew, in shadow mode.

What is kept goes back to the server as the token ids it came as: nothing is tokenised anew, and the model stands where
it stood when it drew the segment that is given up. The healer does not: it begins with the first new segment, whose U
lacks the rise over the one before (F3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.client import Drawn, Server
from e3rl_training.evaluation.problems import Asked
from e3rl_training.tasks import Problem


async def other_end(server: Server, source: Source, drawn: Drawn, at: int, *, room: int, seed: int) -> Drawn:
    """What follows a draw's first `at` segments this time: the end alone; with them it takes `room` tokens at most.

    Raises:
        EvaluationError: the draw's text is not what the model wrote, or as `Server.draw`.
    """
    tokens, chars = size(drawn, len(drawn.segments))
    if (tokens, chars) != (len(drawn.ids), len(drawn.text)):
        raise EvaluationError(
            f"{source.name}: the server shows other text than the model wrote, which cannot be gone on from; "
            "start it without parsers of reasoning or tool calls"
        )
    kept, _ = size(drawn, at)
    prompt = (*drawn.prompt_ids, *drawn.ids[:kept])
    return await server.draw(source, prompt, room=room - kept, rate=0.0, seed=seed, ids=True)


async def fork(server: Server, source: Source, drawn: Drawn, *, room: int, seed: int) -> Drawn:
    """Another answer that begins like a draw, up to its least certain segment, of equals the first.

    Its text is whole; its tokens, segments and U are those behind the fork.

    Raises:
        EvaluationError: as `other_end`.
    """
    at = max(range(len(drawn.segments)), key=lambda at: drawn.segments[at].u)
    end = await other_end(server, source, drawn, at, room=room, seed=seed)
    _, chars = size(drawn, at)
    return replace(end, text=drawn.text[:chars] + end.text)


def joined(drawn: Drawn, at: int, end: Drawn) -> Drawn:
    """The answer that is a draw's first `at` segments and another end."""
    kept, chars = size(drawn, at)
    segments = (*drawn.segments[:at], *end.segments)
    return Drawn(
        text=drawn.text[:chars] + end.text,
        finish=end.finish,
        committed=kept + end.committed,
        erased=0,
        erasures=0,
        u=fmean(segment.u for segment in segments),
        logprobs=(*drawn.logprobs[:kept], *end.logprobs),
        pieces=(*drawn.pieces[:kept], *end.pieces),
        segments=segments,
        seconds=drawn.seconds + end.seconds,
        prompt_ids=drawn.prompt_ids,
        ids=(*drawn.ids[:kept], *end.ids),
    )


async def heal_by_labels(
    server: Server, source: Source, asked: Asked, *, room: int, policy: HealingPolicy, seed_of: Callable[[int], int]
) -> Drawn:
    """An answer whose wrong segments are erased, and only those: what healing could reach if U were never mistaken.

    As in the engine a segment is drawn again from its checkpoint, at most `max_erasures` times, and the last draw is
    kept. Budgets do not bind. What was drawn behind an erased segment does not count: the engine would not have drawn
    it. `seed_of` tells a seed by the number of the request.

    Raises:
        EvaluationError: segments are not the steps that the labels are about, or as `other_end`.
    """
    problem = asked.task
    assert problem is not None
    drawn = await server.draw(source, asked.prompt, room=room, rate=0.0, seed=seed_of(0), ids=True)
    erasures: Counter[int] = Counter()
    erased: Counter[int] = Counter()
    at = 0
    while at < len(drawn.segments):
        right = _right(problem, drawn, at)
        if not right and drawn.text == problem.solution:
            raise EvaluationError(
                f"{source.name}: the server's segments are not the steps of the problems; say what a segment is in "
                "--healing, as the task's recipe has it"
            )
        if right or erasures[at] == policy.max_erasures:
            at += 1
            continue
        erasures[at] += 1
        erased[at] += drawn.segments[at].tokens
        end = await other_end(server, source, drawn, at, room=room, seed=seed_of(erasures.total()))
        drawn = joined(drawn, at, end)
    segments = (one.model_copy(update={"erased": erased[at]}) for at, one in enumerate(drawn.segments))
    return replace(drawn, erased=erased.total(), erasures=erasures.total(), segments=tuple(segments))


def _right(problem: Problem, drawn: Drawn, at: int) -> bool:
    (_, start), (_, end) = size(drawn, at), size(drawn, at + 1)
    return problem.right(at, drawn.text[:start], drawn.text[start:end])


def size(drawn: Drawn, segments: int) -> tuple[int, int]:
    """Tokens and characters of a draw's first segments."""
    first = drawn.segments[:segments]
    return sum(one.tokens for one in first), sum(one.chars or 0 for one in first)
