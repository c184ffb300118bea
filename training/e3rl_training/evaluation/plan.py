"""Which draws an evaluation is made of."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from e3rl_training.evaluation.arms import Arm, Source, sources_of
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
    def sources(self) -> list[Source]:
        return sources_of(self.arms)

    def pool(self, source: Source) -> int:
        """How many draws of a source there are per problem."""
        if not source.repeats:
            return 1
        return max([self.samples, *(arm.draws for arm in self.arms if arm.source == source)])

    def keys(self, source: Source) -> Iterator[Key]:
        """All samples of a source; draw by draw, so that a run that is stopped has seen all problems alike."""
        if any(arm.gated and arm.source == source for arm in self.arms):
            yield from ((source.name, problem, 0) for problem in self.calibration)
        for draw in range(self.pool(source)):
            yield from ((source.name, problem, draw) for problem in self.reported)


def seed_of(seed: int, problem: int, draw: int) -> int:
    """A request's seed: the same for every source, so that two arms differ by no more than they must."""
    return random.Random(f"{seed}-{problem}-{draw}").getrandbits(31)
