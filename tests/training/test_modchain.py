"""The mod-chain task: what it asks, what is right, and where a chain went wrong."""

from __future__ import annotations

import pytest

from e3rl_training.modchain import Problem, grade, problems

PROBLEM = Problem(7, (("+", 8), ("*", 3), ("-", 9)))


def test_a_problem_and_its_solution() -> None:
    assert PROBLEM.prompt == "7+8*3-9>"
    assert PROBLEM.solution == "7+8=5;5*3=5;5-9=6"
    assert PROBLEM.answer == "6"
    assert Problem.parse(PROBLEM.prompt) == PROBLEM


@pytest.mark.parametrize("prompt", ["", "7>", "7+8", "7+8*>", "77+8>"])
def test_what_is_no_problem(prompt: str) -> None:
    with pytest.raises(ValueError, match="no chain"):
        Problem.parse(prompt)


def test_the_same_seed_asks_the_same() -> None:
    assert problems(5, steps=6, seed=1) == problems(5, steps=6, seed=1)
    assert problems(5, steps=6, seed=1) != problems(5, steps=6, seed=2)
    assert len(problems(1, steps=4, seed=0)[0].steps) == 4


def test_every_solution_is_right() -> None:
    for problem in problems(50, steps=6, seed=0):
        assert grade(problem, problem.solution) == [True] * 6
        assert problem.answer_in(problem.solution) == problem.answer


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("7+8=4;4*3=2;2-9=3", [False, True, True]),  # what follows a slip is right where it follows
        ("7+8=5;5*3=5;4-9=5", [True, True, False]),  # carried wrongly
        ("7+8=5;5+3=8;8-9=9", [True, False, True]),  # another operator than the prompt's
        ("7+8=5;5*3=5;5-9=6;6+1=7", [True, True, True, False]),  # a step too many
        ("+;", [False, False]),
    ],
)
def test_a_grade_tells_which_step_went_wrong(completion: str, expected: list[bool]) -> None:
    assert grade(PROBLEM, completion) == expected
