"""Erasing from the onset: where the server is asked to go on, what stays in front of it, and what is paid."""

from __future__ import annotations

from typing import Any

import pytest

from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.client import Drawn
from e3rl_training.evaluation.onset import heal_from_onset
from e3rl_training.evaluation.problems import Asked
from tests.training.evaluation.fake_server import Piece, ScriptedServer, ask, pieces, text_of

PROMPT = "1+2+3+4>"
SOLUTION = "1+2=3;3+3=6;6+4=0"
#: Its second segment is above the threshold of 2; smoothed, the surprisal of the 7 is 3.
WRONG = pieces("1+2=3;3+3=7;7+4=1", 0.1, 3.0, 0.1)
SPIKES = {"7": 6.0}


def heal(
    *answers: list[Piece], most: int = 5, spikes: Any = SPIKES, prompt: Any = PROMPT
) -> tuple[Drawn, list[tuple[str, int, int]]]:
    """The answer, and for each further request what it went on from, its room and its seed."""
    server = ScriptedServer(*answers, bar=2.0, spikes=spikes)
    asked, source, policy = Asked(prompt, "0"), Source("onset", 1.0), HealingPolicy(max_erasures=most)
    found = ask(
        server,
        lambda on: heal_from_onset(on, source, asked, room=18, policy=policy, seed_of=lambda number: 70 + number),
    )
    first, *others = server.requests
    assert first["seed"] == 70 and all(one["healing"] == {"mode": "shadow"} for one in server.requests)
    return found, [(text_of(one["prompt"]).removeprefix(PROMPT), one["max_tokens"], one["seed"]) for one in others]


def test_a_sure_answer_is_asked_for_once() -> None:
    found, others = heal(pieces(SOLUTION, 0.1, 0.1, 0.1))
    assert (found.text, found.erased, found.erasures, others) == (SOLUTION, 0, 0, [])


@pytest.mark.parametrize("prompt", [PROMPT, [{"role": "user", "content": PROMPT}]])
def test_what_stands_in_front_of_the_spike_stays(prompt: Any) -> None:
    found, others = heal(WRONG, pieces("6;6+4=0", 0.4, 0.2), prompt=prompt)
    assert others == [("1+2=3;3+3=", 8, 71)]
    assert found.text == SOLUTION and text_of(found.ids[:-1]) == SOLUTION
    assert [(one.tokens, one.chars, one.erased) for one in found.segments] == [
        (6, 6, 0),
        (4, 4, 0),
        (6, 6, 2),
        (2, 1, 0),
    ]
    assert (found.committed, found.erased, found.erasures) == (18, 2, 1)
    assert found.u == pytest.approx((0.1 + 0.0 + 0.4 + 0.2) / 4), "in front of the spike nothing surprises"


def test_without_a_spike_all_of_it_goes() -> None:
    found, others = heal(WRONG, pieces("3+3=6;6+4=0", 0.1, 0.1), spikes={})
    assert others == [("1+2=3;", 12, 71)]
    assert (found.text, [one.erased for one in found.segments]) == (SOLUTION, [0, 6, 0])


def test_what_is_drawn_behind_it_is_cut_in_its_turn() -> None:
    found, others = heal(WRONG, pieces("6;7+4=1", 3.0, 0.1), pieces("6+4=0", 0.1))
    assert [prompt for prompt, *_ in others] == ["1+2=3;3+3=", "1+2=3;3+3=6;"]
    assert (found.text, found.erased, found.erasures) == (SOLUTION, 2 + 4, 2)


def test_a_redraw_has_a_higher_threshold() -> None:
    """Of 2.5, and the next one of 2 again."""
    found, _ = heal(WRONG, pieces("6;6+4=0", 2.4, 0.1))
    assert (found.text, found.erasures) == (SOLUTION, 1)
    found, _ = heal(WRONG, pieces("6;6+4=0", 2.4, 2.4), pieces("0", 0.1))
    assert (found.text, found.erasures) == (SOLUTION, 2)


def test_the_policy_caps_the_erasures() -> None:
    found, _ = heal(WRONG, pieces("8;8+4=2", 9.0, 0.1), most=1)
    assert (found.text, found.erasures) == ("1+2=3;3+3=8;8+4=2", 1)
