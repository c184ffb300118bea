"""The word problems: what they tell, how they are worked out, and where a solution went wrong."""

from __future__ import annotations

import pytest

from e3rl_training.rewards import exact
from e3rl_training.wordproblems import Line, Problem, Step, grade, problems

#: 12 apples; 3 bags of 5 more; 8 less.
PROBLEM = Problem("...", (Step(3, "*", 5), Step(12, "+", Line(0)), Step(Line(1), "-", 8)))


def test_a_problem_and_its_solution() -> None:
    assert PROBLEM.solution == "3*5=15\n12+15=27\n27-8=19\n#### 19"
    assert PROBLEM.answer == "19"


def test_the_same_seed_asks_the_same() -> None:
    assert problems(5, steps=4, seed=1) == problems(5, steps=4, seed=1)
    assert problems(5, steps=4, seed=1) != problems(5, steps=4, seed=2)


def test_problems_are_of_two_to_so_many_steps_and_small_numbers() -> None:
    made = problems(300, steps=4, seed=0)
    assert {len(problem.steps) for problem in made} == {2, 3, 4}
    assert all(2 <= int(problem.answer) <= 99 for problem in made)
    assert len({problem.prompt for problem in made}) == 300


def test_every_number_of_a_solution_is_told_or_worked_out() -> None:
    for problem in problems(300, steps=4, seed=0):
        words = problem.prompt.replace("doubles", "2").replace("triples", "3").replace(".", " ").split()
        told = {int(word) for word in words if word.isdigit()}
        for step in problem.steps:
            assert {one for one in (step.left, step.right) if isinstance(one, int)} <= told


def test_every_solution_is_right() -> None:
    for problem in problems(100, steps=4, seed=0):
        assert grade(problem, problem.solution) == [True] * (len(problem.steps) + 1)
        assert problem.answer_in(problem.solution) == problem.answer
        assert exact(problem.solution, problem.answer) == 1.0


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("3*5=16\n12+16=28\n28-8=20\n#### 20", [False, True, True, True]),  # what follows a slip is right
        ("3*5=15\n12+15=27\n28-8=20\n#### 20", [True, True, False, True]),  # carried wrongly
        ("3*5=15\n12+15=27\n27+8=35\n#### 35", [True, True, False, True]),  # another operation than the story's
        ("3*5=15\n12+15=27\n27-8=19\n#### 18", [True, True, True, False]),
        ("3*5=15\n12+15=27\n#### 27", [True, True, False]),  # a step too few
        ("3*5=15\n12+15=27\n27-8=19\n19+1=20\n#### 20", [True, True, True, False, False]),
        ("3*5=15\nso\n12+15=27", [True, False, False]),
    ],
)
def test_a_grade_tells_which_line_went_wrong(completion: str, expected: list[bool]) -> None:
    assert grade(PROBLEM, completion) == expected


@pytest.mark.parametrize(
    ("completion", "answer"), [("27-8=19", ""), ("#### 19\n", "19"), ("#### 19 apples", "19 apples")]
)
def test_an_answer_stands_behind_its_mark(completion: str, answer: str) -> None:
    assert PROBLEM.answer_in(completion) == answer
