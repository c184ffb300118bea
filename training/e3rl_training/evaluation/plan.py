"""Which draws an evaluation is made of."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from e3rl_training.evaluation.arms import BASE, Arm, Source, sources_of
from e3rl_training.evaluation.samples import Key

#: Of each source so many answers are streamed, to see when their text comes: streaming all would slow all.
TIMED = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """Arms, the problems they are measured on, and how often each source draws."""

    arms: Sequence[Arm]
    calibration: Sequence[int]
    """Problems that set thresholds."""
    reported: Sequence[int]
    samples: int
    """Draws per problem and source; more where a rule takes more."""

    @property
    def timed(self) -> Sequence[int]:
        """Problems on whose first draws it is measured when text comes."""
        return self.reported[:TIMED]

    @property
    def base(self) -> Arm | None:
        """What every arm is compared with: `plain@1.0`, or else the first of its kind."""
        return BASE if BASE in self.arms else self._first("plain")

    @property
    def healed(self) -> Arm | None:
        """What every arm is compared with, too: the first one that heals by the server's own settings."""
        return self._first("healed")

    def _first(self, kind: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.rule is None and arm.source.kind == kind), None)

    @property
    def base_source(self) -> Source:
        """Which source is shown where one stands for all: `plain@1.0`'s, or else the first plain one, or the first."""
        plain = [source for source in self.sources if source.kind == "plain"]
        return BASE.source if BASE.source in plain else next(iter(plain), self.sources[0])

    @property
    def sources(self) -> list[Source]:
        return sources_of(self.arms)

    def pool(self, source: Source) -> int:
        """How many draws of a source there are per problem."""
        if not source.repeats:
            return 1
        return max([self.samples, *(arm.draws for arm in self.arms if arm.source == source and not arm.forks)])

    def forks(self, source: Source) -> int:
        """How many forks a draw of a source gets at most."""
        return max([0, *(arm.forks for arm in self.arms if arm.source == source)])

    def calibrating(self, source: Source) -> Iterator[Key]:
        """The samples of a source that set its thresholds."""
        if any(arm.gated and arm.source == source for arm in self.arms):
            yield from ((source.name, problem, 0) for problem in self.calibration)

    def keys(self, source: Source) -> Iterator[Key]:
        """All samples of a source; draw by draw, so that a run that is stopped has seen all problems alike."""
        yield from self.calibrating(source)
        for draw in range(self.pool(source)):
            yield from ((source.name, problem, draw) for problem in self.reported)


def seed_of(seed: int, problem: int, draw: int, end: int = 0) -> int:
    """A request's seed: the same for every source, so that two arms differ by no more than they must.

    `end` counts the further ends that are asked of the draw; 0 is the draw itself.
    """
    return random.Random(f"{seed}-{problem}-{draw}" + (f"-{end}" if end else "")).getrandbits(31)
