"""What each rule answers and pays, on draws whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest

from e3rl_training.evaluation.rules import RULES, Outcome, Thresholds, single
from e3rl_training.evaluation.samples import Sample, Segment


def draw(answer: str, **fields: Any) -> Sample:
    """Ten tokens kept and two erased, in two segments; 7 is right."""
    us = fields.pop("us", (1.0, 1.0))
    settings = {
        "source": "plain@1.0", "problem": 0, "draw": 0, "gradable": bool(answer), "committed": 10, "erased": 2,
        "u": sum(us) / 2, "logprob": -1.0, "seconds": 0.0, "finish": "stop", "text": "",
        "segments": (Segment(tokens=6, erased=2, u=us[0]), Segment(tokens=4, erased=0, u=us[1])),
    }  # fmt: skip
    return Sample(answer=answer, right=answer == "7", **(settings | fields))


def decide(rule: str, draws: list[Sample], thresholds: Thresholds = Thresholds()) -> Outcome:  # noqa: B008
    return RULES[rule].decide(draws, thresholds)


def test_one_draw() -> None:
    assert single([draw("7"), draw("8")], Thresholds()) == Outcome(True, 10, 2, 1)


@pytest.mark.parametrize(
    ("answers", "right"),
    [("787", True), ("788", False), ("78", True), ("87", False), (["", "", "7"], True), ([""], False)],
)
def test_majority(answers: Any, right: bool) -> None:
    assert decide("majority", [draw(one) for one in answers]) == Outcome(
        right, 10 * len(answers), 2 * len(answers), len(answers)
    )


def test_best_is_the_most_likely() -> None:
    draws = [draw("8", logprob=-0.5), draw("7", logprob=-0.2), draw("8", logprob=-0.9)]
    assert decide("best", draws) == Outcome(True, 30, 6, 3)


@pytest.mark.parametrize(
    ("answers", "right", "used"),
    [("778", True, 2), ("8778", True, 3), ("887", False, 2), ("789", True, 3), (["", "", "7", "7"], True, 4)],
)
def test_agreement_stops_the_draws(answers: Any, right: bool, used: int) -> None:
    assert decide("agree", [draw(one) for one in answers]) == Outcome(right, 10 * used, 2 * used, used)


def test_the_gate_stays_shut_for_a_sure_answer() -> None:
    draws = [draw("8", us=(1.0, 2.0)), draw("7"), draw("7")]
    assert decide("gated", draws, Thresholds(gate=1.6)) == Outcome(False, 10, 2, 1)
    assert decide("gated", draws, Thresholds(gate=1.4)) == Outcome(True, 30, 6, 3)


def test_forks_of_an_unsure_draw_are_draws_like_others() -> None:
    draws = [draw("8", us=(1.0, 2.0)), draw("7", committed=4, erased=0), draw("7", committed=4, erased=0)]
    assert decide("forked", draws, Thresholds(gate=1.6)) == Outcome(False, 10, 2, 1)
    assert decide("forked", draws, Thresholds(gate=1.4)) == Outcome(True, 18, 2, 3)


def test_an_unsure_draw_is_broken_off_where_it_gets_unsure() -> None:
    """The first one at its first segment: 6 + 2 tokens; the second is whole, though its vote weighs less."""
    draws = [draw("8", us=(3.0, 0.1)), draw("7", us=(1.9, 1.9)), draw("9", us=(0.5, 2.5))]
    assert decide("confident", draws, Thresholds(cut=2.0)) == Outcome(True, 6 + 10 + 10, 2 + 2 + 2, 3)


def test_votes_weigh_by_confidence() -> None:
    draws = [draw("8", us=(1.9, 1.9)), draw("8", us=(1.9, 1.9)), draw("7", us=(0.5, 0.5))]
    assert decide("confident", draws, Thresholds(cut=2.0)).right
    assert not decide("majority", draws).right


def test_the_last_draw_is_let_through_where_all_were_broken_off() -> None:
    draws = [draw("8", us=(3.0, 3.0)), draw("7", us=(3.0, 3.0))]
    assert decide("confident", draws, Thresholds(cut=2.0)) == Outcome(True, 16, 4, 2)


@pytest.mark.parametrize("rule", RULES)
def test_one_draw_is_where_every_rule_begins(rule: str) -> None:
    for answer in ("7", "8", ""):
        assert decide(rule, [draw(answer, us=(3.0, 3.0))], Thresholds(0.1, 0.1)) == Outcome(answer == "7", 10, 2, 1)
