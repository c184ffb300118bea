"""The generated tasks: what a problem of any of them can tell, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from e3rl_training import modchain, wordproblems


class Problem(Protocol):
    """A problem, its solution, and who is right about it."""

    @property
    def prompt(self) -> str: ...

    @property
    def solution(self) -> str: ...

    @property
    def answer(self) -> str: ...

    def right(self, index: int, written: str, step: str) -> bool:
        """Whether `step` follows, as step `index`, from the text `written` in front of it."""
        ...

    def answer_in(self, completion: str) -> str:
        """What a completion says is the answer."""
        ...


class Make(Protocol):
    """Random problems; the same seed gives the same ones."""

    def __call__(self, count: int, *, steps: int, seed: int) -> Sequence[Problem]: ...


@dataclass(frozen=True, slots=True)
class Task:
    problems: Make
    steps: int
    """Of a problem, where nothing else is said."""
    step_tokens: int
    """At most."""
    answer_tokens: int = 0
    """At most, of what follows the last step."""

    def tokens(self, steps: int) -> int:
        """Of a whole response to a problem of so many steps, at most."""
        return steps * self.step_tokens + self.answer_tokens


#: By the name that a recipe calls the data.
TASKS = {
    "modchain": Task(modchain.problems, 6, modchain.STEP_TOKENS),
    "wordproblems": Task(wordproblems.problems, 4, wordproblems.STEP_TOKENS, wordproblems.ANSWER_TOKENS),
}


def solved(problem: Problem, completion: str) -> bool:
    """Whether a completion ends in the right answer."""
    return problem.answer_in(completion) == problem.answer


def accuracy(asked: Sequence[Problem], completions: Sequence[str]) -> float:
    """Share of problems solved."""
    return sum(map(solved, asked, completions)) / len(asked)
