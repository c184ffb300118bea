"""Segments against labels, on chains whose errors are placed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from e3rl_training.evaluation import segments
from e3rl_training.evaluation.arms import parse_arms
from e3rl_training.evaluation.plan import Plan
from e3rl_training.evaluation.problems import Asked
from e3rl_training.evaluation.samples import Sample, Segment
from e3rl_training.modchain import Problem

CHAIN = Problem.parse("7+8*3>")  # 7+8=5;5*3=5
ASKED = [Asked(CHAIN.prompt, CHAIN.answer, CHAIN)] * 3


def sample(problem: int, *kept: tuple[str, float], source: str = "healed@1.0", **segment: dict[str, Any]) -> Sample:
    """Kept steps with their U; `s0`, `s1`: more of a segment."""
    found = [
        Segment(tokens=6, erased=0, u=u, chars=len(text)).model_copy(update=segment.get(f"s{at}", {}))
        for at, (text, u) in enumerate(kept)
    ]
    text = "".join(text for text, _ in kept)
    return Sample(
        source=source, problem=problem, draw=0, answer="5", right=True, gradable=True, committed=12, erased=0, u=1.0,
        logprob=-1.0, segments=tuple(found), seconds=1.0, finish="stop", text=text,
    )  # fmt: skip


ERASED = {"erased": 6, "flagged": True}
SAMPLES = [
    sample(0, ("7+8=5;", 0.5), ("5*3=5", 0.5)),
    sample(1, ("7+8=5;", 0.5), ("5*3=5", 0.6), s1={**ERASED, "first": "5*3=6"}),  # rightly erased
    sample(2, ("7+8=4;", 2.0), ("4*3=2", 0.4), s0={**ERASED, "first": "7+8=5;"}),  # wrongly, and the redraw is wrong
]


def test_a_step_is_right_if_it_follows_from_what_stands_before_it() -> None:
    found = segments.labelled(SAMPLES, ASKED)
    assert [one.right for one in found] == [True, True, True, True, False, True]
    assert [one.first_right for one in found] == [True, True, True, False, True, True]
    assert [one.flagged for one in found] == [False, False, False, True, True, False]


def test_precision_and_recall_of_first_draws() -> None:
    plan = Plan(parse_arms("healed"), (), range(3), 1)
    found = segments.report(plan, {one.key: one for one in SAMPLES}, ASKED, seed=0)["healed@1.0"]
    assert (found["segments"], found["wrong"], found["flagged"], found["first_wrong"]) == (6, 1, 2, 1)
    assert (found["precision"]["mean"], found["recall"]["mean"]) == (0.5, 1.0)
    assert (found["precision"]["low"], found["precision"]["high"]) == (0.0, 1.0)
    assert found["auroc_of_wrong"] == 1.0


def test_nothing_erased_and_nothing_wrong_have_no_share() -> None:
    plan = Plan(parse_arms("healed"), (), range(1), 1)
    found = segments.report(plan, {SAMPLES[0].key: SAMPLES[0]}, ASKED, seed=0)["healed@1.0"]
    assert found["precision"] is found["recall"] is found["auroc_of_wrong"] is None


@pytest.mark.parametrize(
    "unknown",
    [
        sample(0, ("7+8=5;5*3=5", 0.5)),  # the solution in one segment: segments are not steps
        sample(0, ("7+8=5;", 0.5), ("5*3=5", 0.6), s1=ERASED),  # what was erased was not seen
        sample(0, ("7+8=5;", 0.5), ("5*3=5", 0.6), s1={"chars": None}),
    ],
)
def test_no_labels(unknown: Sample) -> None:
    assert segments.labelled([*SAMPLES, unknown], ASKED) == []


def test_a_problem_of_no_task_has_none() -> None:
    assert segments.labelled(SAMPLES, [Asked("7+8*3>", "5")] * 3) == []
