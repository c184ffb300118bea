"""Successive halving (Jamieson and Talwalkar, 2016): many candidates on few problems, the better half on twice as many.

Pure: it knows candidates by number, and asks for their scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: The last round, on all problems, has at most so many candidates.
_FINALISTS = 3
#: No round is decided on fewer problems.
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Round:
    """The scores of some candidates on the first so many problems."""

    problems: int
    scores: dict[int, float]
    """By candidate."""

    @property
    def ranking(self) -> list[int]:
        """The best first; of equals the one with the lower number."""
        return sorted(self.scores, key=lambda candidate: (-self.scores[candidate], candidate))


Score = Callable[[int, int], float]
"""Of a candidate on the first so many problems."""


def halve(candidates: int, problems: int, score: Score) -> list[Round]:
    """The rounds of a search; the last one's best is found.

    Args:
        candidates: how many, at least 1.
        problems: how many there are.
        score: called for a candidate with growing numbers of problems, each time for all it has to be judged on.
    """
    sizes = [candidates]
    while sizes[-1] > _FINALISTS:
        sizes.append((sizes[-1] + 1) // 2)
    rounds: list[Round] = []
    left = list(range(candidates))
    for at, size in enumerate(sizes):
        asked = min(problems, max(_FEWEST, problems >> (len(sizes) - 1 - at)))
        rounds.append(Round(asked, {one: score(one, asked) for one in left[:size]}))
        left = rounds[-1].ranking
    return rounds
