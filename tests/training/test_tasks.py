"""What all generated tasks hold to."""

from __future__ import annotations

import pytest

from e3rl_training.modchain import Problem
from e3rl_training.tasks import TASKS, accuracy


@pytest.mark.parametrize("name", TASKS)
def test_solutions_solve(name: str) -> None:
    task = TASKS[name]
    asked = task.problems(20, steps=task.steps, seed=0)
    assert accuracy(asked, [problem.solution for problem in asked]) == 1.0
    assert accuracy(asked, [""] * 20) == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_prompts_name_their_problems(name: str) -> None:
    """Comparisons find a problem by its prompt."""
    task = TASKS[name]
    asked = task.problems(500, steps=task.steps, seed=0)
    by_prompt = {problem.prompt: problem for problem in asked}
    assert all(by_prompt[problem.prompt].solution == problem.solution for problem in asked)


def test_accuracy_is_of_answers() -> None:
    problem = Problem(7, (("+", 8), ("*", 3), ("-", 9)))
    assert accuracy([problem] * 4, [problem.solution, "6", "1=6", ""]) == 0.75


def test_room_is_for_all_steps() -> None:
    assert TASKS["modchain"].tokens(6) == 36
