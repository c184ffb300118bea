"""Generated word problems of a few arithmetic steps, for a real language model; every step can be graded.

    prompt    Mia has 12 apples. Mia buys 3 bags of 5 apples. Mia gives 8 apples to Tom. How many apples does ...?
    solution  3*5=15            one step per line, numbers as the story tells them or as an earlier line came out
              12+15=27
              27-8=19
              #### 19           the answer, as GSM8K marks it; the reward `exact` reads it

As in `modchain`, a line counts as right if it follows from what is written in front of it, even where that was wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Tokens of a step at most, its line end included, where a tokenizer makes one of every digit.
STEP_TOKENS = 10
#: Tokens of the line with the answer and the end of sequence, at most.
ANSWER_TOKENS = 8
#: Results stay in this range.
_LEAST, _MOST = 2, 99

_MARK = "####"
_RESULT = re.compile(r"=(-?\d+)$")


@dataclass(frozen=True, slots=True)
class Line:
    """What an earlier line came to, as an operand."""

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, on numbers of the story or results of earlier lines."""

    left: int | Line
    operator: str
    """One of ``+-*``."""
    right: int | Line

    def written(self, results: Sequence[int]) -> str:
        """The line, given what the lines before came to."""
        left, right = (results[one.index] if isinstance(one, Line) else one for one in (self.left, self.right))
        return f"{left}{self.operator}{right}={apply(self.operator, left, right)}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A story, and how it is worked out."""

    prompt: str
    steps: tuple[Step, ...]

    @property
    def solution(self) -> str:
        lines: list[str] = []
        for step in self.steps:
            lines.append(step.written([int(line.partition("=")[2]) for line in lines]))
        return "\n".join([*lines, f"{_MARK} {lines[-1].partition('=')[2]}"])

    @property
    def answer(self) -> str:
        return self.answer_in(self.solution)

    def right(self, index: int, written: str, step: str) -> bool:
        """Whether `step` follows, as line `index`, from the lines `written` in front of it."""
        found = [_RESULT.search(line) for line in written.splitlines()]
        results = [int(match[1]) for match in found if match]
        if len(results) < len(found) or len(results) != index or index > len(self.steps):
            return False
        expected = f"{_MARK} {results[-1]}" if index == len(self.steps) else self.steps[index].written(results)
        return step.removesuffix("\n") == expected

    def answer_in(self, completion: str) -> str:
        """What a completion says is the answer; empty where it says none."""
        return completion.rpartition(_MARK)[2].strip() if _MARK in completion else ""


def apply(operator: str, left: int, right: int) -> int:
    """One operation; `operator` is one of ``+-*``."""
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def problems(count: int, *, steps: int, seed: int) -> list[Problem]:
    """Random problems of two to `steps` steps; the same seed gives the same ones."""
    stream = random.Random(f"wordproblems-{steps}-{seed}")
    return [_problem(stream, stream.randint(min(2, steps), steps)) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class _Theme:
    """How one kind of story tells what happens: `{n}` and `{k}` are numbers, the rest is of the story."""

    things: tuple[str, ...]
    start: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    packs: tuple[str, ...]
    times: str
    question: str


_NAMES = ("Mia", "Tom", "Lena", "Omar", "Ruth", "Ivan", "Nora", "Paul", "Sara", "Hugo", "Emma", "Liam")
_TIMES = {2: "doubles", 3: "triples"}
_THEMES = (
    _Theme(
        ("apples", "pears", "lemons", "plums"),
        "{name} has {n} {things}.",
        ("{name} buys {n} more {things}.", "{other} brings {name} {n} {things}."),
        ("{name} gives {n} {things} to {other}.", "{name} eats {n} of the {things}."),
        ("{name} buys {k} bags of {n} {things} each.", "{k} friends each bring {n} {things}."),
        "The number of {things} then {times}.",
        "How many {things} does {name} have now?",
    ),
    _Theme(
        ("stamps", "coins", "marbles", "cards"),
        "{name} starts a collection with {n} {things}.",
        ("{name} finds {n} more {things}.", "{other} sends {n} {things}."),
        ("{name} loses {n} {things}.", "{name} trades away {n} {things}."),
        ("{name} adds {k} boxes with {n} {things} in each.", "{name} gets {n} {things} a day for {k} days."),
        "In spring the collection {times}.",
        "How many {things} are in the collection?",
    ),
    _Theme(
        ("books", "maps", "pens", "lamps"),
        "A shop opens with {n} {things} on its shelf.",
        ("{name} puts {n} more {things} on the shelf.", "A truck delivers {n} {things}."),
        ("The shop sells {n} {things}.", "{name} takes {n} {things} home."),
        ("{k} cartons of {n} {things} each arrive.", "{name} unpacks {k} crates, each with {n} {things}."),
        "{name} orders so many {things} that the stock {times}.",
        "How many {things} does the shop have left?",
    ),
    _Theme(
        ("hens", "goats", "sheep", "ducks"),
        "On {name}'s farm there are {n} {things}.",
        ("{n} {things} are born.", "{name} buys {n} {things} at the market."),
        ("{n} of the {things} are sold.", "{n} {things} run away."),
        ("{k} neighbours each give {name} {n} {things}.", "{name} buys {k} groups of {n} {things}."),
        "Over the years the flock {times}.",
        "How many {things} live on the farm in the end?",
    ),
)


def _problem(stream: random.Random, count: int) -> Problem:
    """A story of exactly `count` steps."""
    theme = stream.choice(_THEMES)
    name, other = stream.sample(_NAMES, 2)
    words = {"name": name, "other": other, "things": stream.choice(theme.things)}
    value = stream.randint(5, 30)
    told = [theme.start.format(n=value, **words)]
    steps: list[Step] = []
    while len(steps) < count:
        carried = Line(len(steps) - 1) if steps else value
        kind = stream.choice(("more", "less", "packs", "times"))
        k, n = stream.randint(2, 6), stream.randint(2, 20)
        if kind == "packs":
            n = stream.randint(2, 9)
            made, change = [Step(k, "*", n), Step(carried, "+", Line(len(steps)))], k * n
            sentence = stream.choice(theme.packs)
        elif kind == "times":
            k = stream.choice((2, 3))
            made, change = [Step(carried, "*", k)], value * (k - 1)
            sentence = theme.times
        elif kind == "more":
            made, change = [Step(carried, "+", n)], n
            sentence = stream.choice(theme.more)
        else:
            made, change = [Step(carried, "-", n)], -n
            sentence = stream.choice(theme.less)
        if len(steps) + len(made) > count or not _LEAST <= value + change <= _MOST:
            continue
        value += change
        steps += made
        told.append(sentence.format(n=n, k=k, times=_TIMES.get(k), **words))
    return Problem(" ".join([*told, theme.question.format(**words)]) + "\n", tuple(steps))


def grade(problem: Problem, completion: str) -> list[bool]:
    """Whether each line of a completion is right, in order."""
    lines = completion.splitlines(keepends=True)
    return [problem.right(index, "".join(lines[:index]), line) for index, line in enumerate(lines)]
