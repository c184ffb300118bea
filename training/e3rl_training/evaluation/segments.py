"""Segments against what is known of them: where a task tells right steps from wrong ones, U and erasures are graded.

A segment has to be a step of the task for that, as the recipes of generated tasks cut them. Whether it is shows in the
answers that are the solution word for word: where one of their segments counts as wrong, or there is no such answer,
nothing here is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.plan import Plan
from e3rl_training.evaluation.problems import Asked
from e3rl_training.evaluation.samples import Key, Sample
from e3rl_training.evaluation.statistics import Array, Bootstrap, auroc, interval
from e3rl_training.tasks import Problem


@dataclass(frozen=True, slots=True)
class Labelled:
    """A kept segment, and the first draw there, which the rule was asked about."""

    problem: int
    u: float
    """Of the kept one; nats."""
    right: bool
    flagged: bool
    """Whether the first draw was erased, or in shadow mode would have been."""
    first_right: bool


def labelled(samples: Sequence[Sample], asked: Sequence[Asked]) -> list[Labelled]:
    """The segments of some answers; empty where they are not the steps of a task, or their texts are not known."""
    found = []
    for sample in samples:
        problem = asked[sample.problem].task
        known = all(one.first is not None or not one.erased for one in sample.segments)
        if problem is None or not known or sum(one.chars or 0 for one in sample.segments) != len(sample.text):
            return []
        labels = list(_labels(sample, problem))
        if sample.text == problem.solution and not all(one.right for one in labels):
            return []
        found += labels
    return found


def _labels(sample: Sample, problem: Problem) -> Iterator[Labelled]:
    start = 0
    for index, one in enumerate(sample.segments):
        written, kept = sample.text[:start], sample.text[start : start + (one.chars or 0)]
        right = problem.right(index, written, kept)
        first = right if one.first is None else problem.right(index, written, one.first)
        yield Labelled(sample.problem, one.u, right, one.flagged, first)
        start += len(kept)


def report(plan: Plan, samples: Mapping[Key, Sample], asked: Sequence[Asked], seed: int) -> dict[str, Any]:
    """By source: how well U tells wrong segments, and the erase rule's precision and recall over first draws.

    Args:
        plan: which draws there are.
        samples: all of them.
        asked: the problems, with their tasks.
        seed: of the resamples, as the rest of the report takes them.
    """
    tasks = [one.task for one in asked]
    if not any((task := tasks[one.problem]) and one.text == task.solution for one in samples.values()):
        return {}
    bootstrap = Bootstrap(len(plan.reported), seed)
    place = {problem: at for at, problem in enumerate(plan.reported)}
    found = {}
    for source in plan.sources:
        labels = of_source(plan, samples, asked, source)
        if not labels:
            continue
        wrong, right = ([one.u for one in labels if one.right is word] for word in (False, True))
        area = auroc(wrong, right)
        sums = np.zeros((len(place), 3))
        for one in labels:
            sums[place[one.problem]] += (one.flagged and not one.first_right, one.flagged, not one.first_right)
        hits, flagged, first_wrong = sums.T
        found[source.name] = {
            "segments": len(labels),
            "wrong": len(wrong),
            "auroc_of_wrong": None if area is None else round(area, 4),
            "flagged": int(flagged.sum()),
            "first_wrong": int(first_wrong.sum()),
            "precision": _share(hits, flagged, bootstrap),
            "recall": _share(hits, first_wrong, bootstrap),
        }
    return found


def of_source(plan: Plan, samples: Mapping[Key, Sample], asked: Sequence[Asked], source: Source) -> list[Labelled]:
    """The labelled segments of a source's draws on the reported problems."""
    reported = set(plan.reported)
    return labelled([samples[key] for key in plan.keys(source) if key[1] in reported], asked)


def _share(part: Array, whole: Array, bootstrap: Bootstrap) -> dict[str, float] | None:
    """A ratio of sums over problems with its interval; None of nothing. A resample of nothing is left out."""
    if not whole.sum():
        return None
    parts, wholes = bootstrap.means(part), bootstrap.means(whole)
    there = wholes > 0
    return interval(float(part.sum() / whole.sum()), parts[there] / wholes[there]).dump()
