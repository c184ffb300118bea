"""Who is right, what a vote compares, and what nobody can grade."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e3rl_training.evaluation.grading import Grade, Grader, answer_of
from e3rl_training.evaluation.problems import Asked
from e3rl_training.modchain import Problem


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    made = Grader(seconds=20.0)  # sympy's first parse may be slow
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"So it is \boxed{\frac{1}{2}}.", "0.5", True),
        (r"So it is \boxed{3}.", "0.5", False),
        ("Work.\n#### 1,234", "1234", True),
        ("They cost 27 dollars.", "27.0", True),
    ],
)
def test_maths(grader: Grader, text: str, answer: str, right: bool) -> None:
    found = grader.grade(Asked([], answer), text)
    assert (found.right, found.gradable) == (right, True)


@pytest.mark.parametrize("text", ["I do not know.", ""])
def test_no_answer_is_wrong_and_counted(grader: Grader, text: str) -> None:
    assert grader.grade(Asked([], "5"), text) == Grade("", False, False)


def test_an_answer_that_takes_too_long_is_ungradable() -> None:
    grader = Grader(seconds=0.001)  # the first one imports sympy
    try:
        assert grader.grade(Asked([], "5"), r"\boxed{5}") == Grade("", False, False)
    finally:
        grader.close()


def test_a_generated_task_grades_itself() -> None:
    problem = Problem.parse("7+8*3>")
    grader = Grader()
    asked = Asked(problem.prompt, problem.answer, problem)
    assert grader.grade(asked, "7+8=5;5*3=5") == Grade("5", True, True)
    assert grader.grade(asked, "7+8=5;5*3=4") == Grade("4", False, True)
    assert not grader.grade(asked, "").gradable


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} or rather \boxed{ \left( 1,  2 \right) }", "(1,2)"),
        ("so $12,345$ in all.", "12345"),
        ("3 + 4 = 7\n#### 7\nDone", "7"),
        ("It is -1/2.", "-1/2"),
        ("nothing", ""),
    ],
)
def test_what_votes_compare(text: str, answer: str) -> None:
    assert answer_of(text) == answer
