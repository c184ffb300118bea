"""Looking ahead: what the server is asked where a draw is unsure, which candidate stays, and what the others cost."""

from __future__ import annotations

import pytest

from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.client import Drawn
from e3rl_training.evaluation.lookahead import look_ahead
from e3rl_training.evaluation.problems import Asked
from tests.training.evaluation.fake_server import Piece, ScriptedServer, ask, pieces, text_of

PROMPT = "1+2+3+4+5>"
#: 1+2=3; 3+3=6; 6+4=0; 0+5=5: four segments, the last one with the token that ends the answer.
SURE = pieces("1+2=3;3+3=6;6+4=0;0+5=5", 0.1, 0.1, 0.1, 0.1)


def look(*answers: list[Piece], candidates: int = 3, most: int = 5) -> tuple[Drawn, list[tuple[str, int]]]:
    """The answer, and for each further request what it went on from and its seed. Above a U of 2 one is unsure."""
    server = ScriptedServer(*answers, bar=2.0)
    asked, source = Asked(PROMPT, "5"), Source("lookahead", 1.0, candidates)
    policy = HealingPolicy(max_erasures=most)
    found = ask(
        server,
        lambda on: look_ahead(on, source, asked, room=24, policy=policy, seed_of=lambda number: 70 + number),
    )
    first, *others = server.requests
    assert (first["prompt"], first["seed"], first["max_tokens"]) == (PROMPT, 70, 24)
    assert all(one["healing"] == {"mode": "shadow"} for one in server.requests)
    return found, [(text_of(one["prompt"]).removeprefix(PROMPT), one["seed"]) for one in others]


def test_a_sure_answer_is_asked_for_once() -> None:
    found, others = look(SURE)
    assert (found.committed, found.erased, found.erasures, others) == (24, 0, 0, [])


def test_the_candidate_that_goes_on_best_stays() -> None:
    """The first alternative is surer where it begins, the second one over both segments; what is behind has no say."""
    found, others = look(
        pieces("1+2=3;3+3=7;7+4=1;1+5=6", 0.1, 3.0, 1.0, 0.1),
        pieces("3+3=8;8+4=2;2+5=7", 0.2, 1.5, 0.0),
        pieces("3+3=6;6+4=0;0+5=5", 0.8, 0.4, 1.9),
    )
    assert others == [("1+2=3;", 71), ("1+2=3;", 72)]
    assert found.text == "1+2=3;3+3=6;6+4=0;0+5=5" and text_of(found.ids[:-1]) == found.text
    assert (found.committed, found.erased, found.erasures) == (24, 2 * 12, 2)
    assert found.u == pytest.approx((0.1 + 0.8 + 0.4 + 1.9) / 4)
    chosen = found.segments[1]
    assert (chosen.erased, chosen.flagged, chosen.first) == (24, True, "3+3=7;")


def test_of_equals_the_first_draw_stays() -> None:
    found, _ = look(
        pieces("1+2=3;3+3=6;6+4=0;0+5=5", 0.1, 2.5, 0.1, 0.1), pieces("3+3=7;7+4=1;1+5=6", 2.5, 0.1, 0.0), candidates=2
    )
    assert found.text == "1+2=3;3+3=6;6+4=0;0+5=5" and (found.erased, found.segments[1].first) == (12, "3+3=6;")


def test_a_look_ahead_may_be_unsure_in_its_turn() -> None:
    """Nothing is paid twice: the look-ahead that was kept, and is given up now, counts as erased alone."""
    found, others = look(
        pieces("1+2=4;4+3=7;7+4=1;1+5=6", 2.6, 2.4, 0.1, 0.1),
        pieces("1+2=3;3+3=7;7+4=1;1+5=6", 0.1, 2.1, 0.1, 0.1),
        pieces("3+3=6;6+4=0;0+5=5", 0.1, 0.1, 0.1),
        candidates=2,
    )
    assert others == [("", 71), ("1+2=3;", 72)]
    assert found.text == "1+2=3;3+3=6;6+4=0;0+5=5"
    assert [one.erased for one in found.segments] == [12, 12, 0, 0] and found.erasures == 2


def test_at_the_end_there_is_nothing_ahead() -> None:
    found, others = look(
        pieces("1+2=3;3+3=6;6+4=0;0+5=6", 0.1, 0.1, 0.1, 2.5), pieces("0+5=5", 0.5), pieces("0+5=7", 0.6)
    )
    assert found.text.endswith("0+5=5") and [prompt for prompt, _ in others] == ["1+2=3;3+3=6;6+4=0;"] * 2
    assert (found.committed, found.erased) == (24, 12), "the token that ends an answer is drawn, too"


def test_the_policy_caps_the_candidates() -> None:
    answer = pieces("1+2=3;3+3=7;7+4=1;1+5=6", 0.1, 3.0, 1.0, 0.1)
    found, others = look(answer, pieces("3+3=6;6+4=0;0+5=5", 0.1, 0.1, 0.1), candidates=8, most=1)
    assert (len(others), found.erasures) == (1, 1)
    found, others = look(answer, most=0)
    assert (found.text, found.erased, others) == ("1+2=3;3+3=7;7+4=1;1+5=6", 0, [])
