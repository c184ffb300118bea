"""Other ends of an answer: what the server is asked, and what a healer that knows the wrong steps writes and pays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import BASE, Source
from e3rl_training.evaluation.client import Drawn, Server
from e3rl_training.evaluation.continuing import fork, heal_by_labels, joined, other_end
from e3rl_training.evaluation.problems import Asked
from e3rl_training.modchain import Problem
from tests.training.evaluation.fake_server import ScriptedServer, ask, pieces, text_of

PROMPT = "1+2+3+4>"
PROBLEM = Problem.parse(PROMPT)  # 1+2=3;3+3=6;6+4=0
ORACLE = Source("oracle", 1.0)


async def first(server: Server, prompt: Any = PROMPT) -> Drawn:
    return await server.draw(BASE.source, prompt, room=18, rate=0.0, seed=1, ids=True)


@pytest.mark.parametrize("prompt", [PROMPT, [{"role": "user", "content": PROMPT}]])
def test_the_kept_part_goes_back_as_token_ids(prompt: Any) -> None:
    server = ScriptedServer(pieces("1+2=3;3+3=7;7+4=1"), pieces("3+3=6;6+4=0"))

    async def call(on: Server) -> Drawn:
        drawn = await first(on, prompt)
        return joined(drawn, 1, await other_end(on, BASE.source, drawn, 1, room=18, seed=9))

    whole = ask(server, call)
    begun, again = server.requests
    assert begun["return_token_ids"] and ("messages" in begun) == (prompt != PROMPT)
    assert text_of(again["prompt"]) == PROMPT + "1+2=3;"
    assert (again["max_tokens"], again["seed"], again["healing"]) == (12, 9, {"mode": "shadow"})
    assert whole.text == PROBLEM.solution and text_of(whole.ids[:-1]) == PROBLEM.solution
    assert [(one.tokens, one.chars) for one in whole.segments] == [(6, 6), (6, 6), (6, 5)]
    assert len(whole.logprobs) == whole.committed == 18


def test_a_fork_pays_from_the_least_certain_segment_on() -> None:
    server = ScriptedServer(pieces("1+2=3;3+3=7;7+4=1", 0.5, 2.0, 0.7), pieces("3+3=6;6+4=0", 0.4, 0.6))

    async def call(on: Server) -> Drawn:
        return await fork(on, BASE.source, await first(on), room=18, seed=9)

    other = ask(server, call)
    assert text_of(server.requests[1]["prompt"]) == PROMPT + "1+2=3;"
    assert other.text == PROBLEM.solution
    assert (other.committed, other.u, len(other.segments)) == (12, 0.5, 2)


def test_a_text_that_is_not_the_models_is_refused() -> None:
    """As where a parser took the reasoning out of it."""

    async def call(on: Server) -> Drawn:
        drawn = replace(await first(on), text="6+4=0")
        return await other_end(on, BASE.source, drawn, 1, room=18, seed=9)

    with pytest.raises(EvaluationError, match="start it without parsers of reasoning"):
        ask(ScriptedServer(pieces(PROBLEM.solution)), call)


def heal(server: ScriptedServer, most: int = 2) -> Drawn:
    asked = Asked(PROMPT, PROBLEM.answer, PROBLEM)
    found: Drawn = ask(
        server,
        lambda on: heal_by_labels(
            on, ORACLE, asked, room=18, policy=HealingPolicy(max_erasures=most), seed_of=lambda number: 70 + number
        ),
    )
    return found


def test_what_is_right_stays() -> None:
    server = ScriptedServer(pieces(PROBLEM.solution))
    found = heal(server)
    assert (found.text, found.committed, found.erased, len(server.requests)) == (PROBLEM.solution, 18, 0, 1)


def test_wrong_segments_are_erased_one_after_the_other() -> None:
    """The second one twice, the third one once; what was drawn behind them does not count."""
    server = ScriptedServer(
        pieces("1+2=3;3+3=7;7+4=1"), pieces("3+3=8;8+4=2"), pieces("3+3=6;6+4=1", 1.0, 4.0), pieces("6+4=0", 2.0)
    )
    found = heal(server)
    assert [text_of(one["prompt"]) if one["seed"] > 70 else one["prompt"] for one in server.requests] == [
        PROMPT,
        PROMPT + "1+2=3;",
        PROMPT + "1+2=3;",
        PROMPT + "1+2=3;3+3=6;",
    ]
    assert [one["seed"] for one in server.requests] == [70, 71, 72, 73]
    assert all(one["healing"] == {"mode": "shadow"} for one in server.requests)
    assert found.text == PROBLEM.solution and found.u == pytest.approx(4 / 3)
    assert (found.committed, found.erased, found.erasures) == (18, 18, 3)
    assert [one.erased for one in found.segments] == [0, 12, 6]


def test_the_last_draw_stays_at_the_cap() -> None:
    """And what follows from it is right again, though the answer is not."""
    server = ScriptedServer(pieces("1+2=4;4+3=7;7+4=1"), pieces("1+2=5;5+3=8;8+4=2"))
    found = heal(server, most=1)
    assert (found.text, found.erased, found.erasures) == ("1+2=5;5+3=8;8+4=2", 6, 1)


def test_segments_that_are_no_steps_are_refused() -> None:
    server = ScriptedServer([(PROBLEM.solution[:9], 1.0, 0), (PROBLEM.solution[9:], 1.0, 0)])
    with pytest.raises(EvaluationError, match=r"oracle@1.0: the server's segments are not the steps .* --healing"):
        heal(server)
