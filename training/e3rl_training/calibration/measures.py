"""From scores to a profile and a report; from grades to how well U tells wrong answers from right ones. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from e3rl_core.calibration import Calibrator, k_for_rate, rate_at, statistics_of
from e3rl_core.errors import CalibrationError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import SegmentStatistics
from e3rl_core.threshold import critical_ks
from e3rl_core.uncertainty import Uncertainty
from e3rl_training.evaluation.statistics import auroc

#: Erase rates that a report tells the k of.
RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Measured:
    """What a sample of answers that erased nothing says of a model."""

    calibrator: Calibrator
    statistics: tuple[SegmentStatistics, ...]
    policy: HealingPolicy
    """The one it was measured under, with the k of the wanted erase rate if one was wanted."""
    critical: Sequence[Sequence[float]]
    """For each segment of each answer, (_B, _S): the k below which it would have been erased."""

    @property
    def all_critical(self) -> list[float]:
        return [k for answer in self.critical for k in answer]


def measure(answers: Sequence[Sequence[Uncertainty]], policy: HealingPolicy, erase_rate: float | None) -> Measured:
    """What is normal, from each answer's scores, (_B, _S), and the k that erases a share of the first draws.

    The rate is exact for these answers where every segment is drawn once; a redraw changes the history that later
    segments are held against.

    Raises:
        CalibrationError: no answer has a segment.
    """
    calibrator = Calibrator(decay=1.0)
    for scores in answers:
        for segment, score in enumerate(scores):
            calibrator.see(segment, 0, score.u, exceeded=False)
    if not calibrator.draws:
        raise CalibrationError("no answer has a token: raise --max-tokens, or see whether the model answers at all")
    longest = len(calibrator.indices)
    priors = [calibrator.moments(segment) for segment in range(longest)]
    rule = policy.threshold
    critical = [critical_ks([one.u for one in scores], priors[: len(scores)], rule) for scores in answers]
    if erase_rate is not None:
        k = k_for_rate([k for answer in critical for k in answer], erase_rate)
        policy = policy.updated({"mode": policy.mode, "threshold": {"k": k}})
    return Measured(calibrator, statistics_of(answers), policy, critical)


def thresholds(measured: Measured) -> dict[str, Any]:
    """The k of the policy with the share it erases, and the k of some round shares."""
    critical = measured.all_critical
    chosen = measured.policy.threshold.k
    found = []
    for rate in RATES:
        k = k_for_rate(critical, rate)
        found.append({"rate": rate, "k": k, "erased": round(rate_at(critical, k), 4)})
    return {"k": chosen, "erased": round(rate_at(critical, chosen), 4), "by_rate": found}


def discrimination(
    answers: Sequence[Sequence[Uncertainty]], right: Sequence[bool], measured: Measured
) -> dict[str, Any]:
    """How well U tells wrong answers: AUROC of an answer's mean and max U, precision and recall by threshold.

    An answer counts as told wrong under a k if at least one of its segments would have been erased.
    """
    graded = [(scores, ok, ks) for scores, ok, ks in zip(answers, right, measured.critical, strict=True) if scores]
    wrong = sum(not ok for _, ok, _ in graded)
    rows = []
    for row in thresholds(measured)["by_rate"]:
        flagged = [ok for _, ok, ks in graded if max(ks) > row["k"]]
        hits = sum(not ok for ok in flagged)
        rows.append(
            {
                **row,
                "answers": round(len(flagged) / len(graded), 4),
                "precision": round(hits / len(flagged), 4) if flagged else None,
                "recall": round(hits / wrong, 4) if wrong else None,
            }
        )
    figures = {
        "mean_u": [sum(one.u for one in scores) / len(scores) for scores, _, _ in graded],
        "max_u": [max(one.u for one in scores) for scores, _, _ in graded],
    }
    oks = [ok for _, ok, _ in graded]
    return {
        "graded": len(graded),
        "right": len(graded) - wrong,
        "auroc": {name: _auroc(values, oks) for name, values in figures.items()},
        "by_threshold": rows,
    }


def _auroc(values: Sequence[float], right: Sequence[bool]) -> dict[str, float] | None:
    """That a wrong answer scores above a right one, with its standard error; None where all are alike."""
    wrong = [value for value, ok in zip(values, right, strict=True) if not ok]
    others = [value for value, ok in zip(values, right, strict=True) if ok]
    area = auroc(wrong, others)
    if area is None:
        return None
    return {"value": round(area, 4), "standard_error": round(auroc_error(area, len(wrong), len(others)), 4)}


def auroc_error(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC (Hanley and McNeil, 1982)."""
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area * area) + (negatives - 1) * (q2 - area * area)
    return math.sqrt(max(0.0, spread) / (positives * negatives))
