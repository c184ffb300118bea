"""Who is right: a generated task by itself, any other answer by math-verify in a process that can be killed."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from e3rl_training.data import last_boxed
from e3rl_training.evaluation.problems import Asked
from e3rl_training.verifier import Unanswered, Verifier

#: For one answer.
SECONDS = 5.0

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TRIFLES = re.compile(r"\\[,;! ]|\\left|\\right|[\s$]")


@dataclass(frozen=True, slots=True)
class Grade:
    answer: str
    """As votes compare it; empty where there is none."""
    right: bool
    gradable: bool
    """Whether there is an answer, and a checker that came to an end with it. What is not counts as wrong."""


class Grader:
    """Grades answers; from several threads one at a time."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._verifier = Verifier("e3rl_training.rewards:maths", seconds, "maths")
        self._turn = threading.Lock()

    def grade(self, asked: Asked, text: str) -> Grade:
        """Grade a text."""
        if asked.task is not None:
            answer = asked.task.answer_in(text)
            return Grade(answer, answer == asked.answer, bool(answer))
        answer = answer_of(text)
        try:
            with self._turn:
                right = self._verifier.score(text, asked.answer) > 0
        except Unanswered:
            return Grade("", False, False)
        return Grade(answer, right, bool(answer) or right)

    def close(self) -> None:
        self._verifier.close()


def answer_of(text: str) -> str:
    r"""The answer that a text states, for votes: in its last ``\boxed{}``, behind ``####``, or its last number.

    Two answers are one vote if they are the same text but for spacing, dollar signs and thousands' commas: coarser than
    math-verify, which takes 1/2 and 0.5 for equal.
    """
    found = last_boxed(text)
    if not found and "####" in text:
        found = text.rpartition("####")[2].strip().partition("\n")[0]
    if not found:
        numbers = _NUMBER.findall(text)
        found = numbers[-1] if numbers else ""
    return _THOUSANDS.sub("", _TRIFLES.sub("", found)).rstrip(".,")
