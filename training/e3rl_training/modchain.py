"""Mod-10 chains: a task that two cores learn in minutes, in which every step can be graded.

    prompt    7+8*3-4>          operators apply from left to right, modulo 10
    solution  7+8=5;5*3=5;5-4=1 one segment of six tokens per step; the end of sequence stands for the last `;`

A step counts as right if it follows from what is written in front of it, even where that was wrong already: so a label
says which segment went wrong, not which ones came after.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

#: Every character of prompts and solutions.
ALPHABET = "0123456789+-*=;>"
OPERATORS = "+-*"
#: Tokens of a step, its `;` or end of sequence included.
STEP_TOKENS = 6

_PROMPT = re.compile(r"\d([+\-*]\d)+>")


@dataclass(frozen=True, slots=True)
class Problem:
    """A first digit, and what is done to it."""

    first: int
    steps: tuple[tuple[str, int], ...]

    @property
    def prompt(self) -> str:
        return f"{self.first}{''.join(f'{operator}{digit}' for operator, digit in self.steps)}>"

    @property
    def solution(self) -> str:
        written, value = [], self.first
        for operator, digit in self.steps:
            result = apply(operator, value, digit)
            written.append(f"{value}{operator}{digit}={result}")
            value = result
        return ";".join(written)

    @property
    def answer(self) -> str:
        return self.solution[-1]

    @classmethod
    def parse(cls, prompt: str) -> Problem:
        """The problem a prompt states.

        Raises:
            ValueError: it states none.
        """
        if not _PROMPT.fullmatch(prompt):
            raise ValueError(f"{prompt!r} is no chain such as 7+8*3>")
        return cls(int(prompt[0]), tuple((prompt[i], int(prompt[i + 1])) for i in range(1, len(prompt) - 1, 2)))

    def right(self, index: int, written: str, step: str) -> bool:
        """Whether `step` follows, as step `index`, from the text `written` in front of it."""
        if index >= len(self.steps):
            return False
        operator, digit = self.steps[index]
        carried = str(self.first) if index == 0 else written.rstrip(";")[-1:]
        if not carried.isdigit():
            return False
        return step.rstrip(";") == f"{carried}{operator}{digit}={apply(operator, int(carried), digit)}"

    def answer_in(self, completion: str) -> str:
        """What a completion says is the answer."""
        return completion.rpartition("=")[2]


def apply(operator: str, left: int, right: int) -> int:
    """One operation modulo 10; `operator` is one of `OPERATORS`."""
    return {"+": left + right, "-": left - right, "*": left * right}[operator] % 10


def problems(count: int, *, steps: int, seed: int) -> list[Problem]:
    """Random problems of so many steps; the same seed gives the same ones."""
    stream = random.Random(f"modchain-{steps}-{seed}")
    return [
        Problem(
            stream.randrange(10),
            tuple((stream.choice(OPERATORS), stream.randrange(10)) for _ in range(steps)),
        )
        for _ in range(count)
    ]


def grade(problem: Problem, completion: str) -> list[bool]:
    """Whether each step of a completion is right, in order."""
    parts = completion.split(";")
    return [problem.right(index, ";".join(parts[:index]), part) for index, part in enumerate(parts)]
