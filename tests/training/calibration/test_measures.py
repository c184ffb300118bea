"""Figures by hand: AUROC and its error, precision and recall by threshold, the k that is chosen."""

from __future__ import annotations

import math

import pytest

from e3rl_core.errors import CalibrationError
from e3rl_core.policy import HealingPolicy
from e3rl_core.uncertainty import Uncertainty
from e3rl_training.calibration.measures import auroc_error, discrimination, measure, thresholds

POLICY = HealingPolicy(mode="shadow")


def scores(*us: float) -> list[Uncertainty]:
    return [Uncertainty(u=u, mean=u, max=u, slope=0.0) for u in us]


#: Four right answers, and two wrong ones that are more uncertain at their end.
ANSWERS = [scores(1.0, 1.1), scores(1.2), scores(0.9, 1.0), scores(1.1, 1.0), scores(1.1, 3.0), scores(1.3, 2.5)]
RIGHT = [True, True, True, True, False, False]


def test_the_wanted_rate_sets_k() -> None:
    measured = measure(ANSWERS, POLICY, 0.2)
    found = thresholds(measured)
    assert found["erased"] == pytest.approx(2 / 11, abs=1e-4)
    assert measured.policy.threshold.k == found["k"] != POLICY.threshold.k
    assert measured.policy.mode == "shadow"


def test_without_a_wanted_rate_k_stays() -> None:
    assert measure(ANSWERS, POLICY, None).policy == POLICY


def test_rates_are_never_exceeded_and_rise() -> None:
    rows = thresholds(measure(ANSWERS, POLICY, None))["by_rate"]
    assert all(row["erased"] <= row["rate"] for row in rows)
    assert [row["k"] for row in rows] == sorted((row["k"] for row in rows), reverse=True)


def test_moments_are_the_calibrators_and_statistics_are_plain() -> None:
    measured = measure(ANSWERS, POLICY, None)
    assert [one.draws for one in measured.statistics] == [6, 5]
    assert measured.statistics[0].u.mean == pytest.approx(6.6 / 6)
    assert measured.calibrator.draws == 11


def test_an_uncertainty_that_tells_all_wrong_answers() -> None:
    found = discrimination(ANSWERS, RIGHT, measure(ANSWERS, POLICY, None))
    assert (found["graded"], found["right"]) == (6, 4)
    assert found["auroc"]["max_u"] == {"value": 1.0, "standard_error": 0.0}
    row = next(row for row in found["by_threshold"] if row["rate"] == 0.2)
    assert (row["answers"], row["precision"], row["recall"]) == (pytest.approx(2 / 6, abs=1e-4), 1.0, 1.0)


def test_auroc_of_some_disorder_by_counting_pairs() -> None:
    answers, right = [scores(u) for u in (1.0, 2.0, 2.0, 3.0)], [True, True, False, False]
    found = discrimination(answers, right, measure(answers, POLICY, None))["auroc"]["mean_u"]
    assert found["value"] == (1 + 0.5 + 1 + 1) / 4


@pytest.mark.parametrize("right", [[True] * 6, [False] * 6])
def test_answers_that_are_all_alike_have_no_auroc(right: list[bool]) -> None:
    found = discrimination(ANSWERS, right, measure(ANSWERS, POLICY, None))
    assert found["auroc"] == {"mean_u": None, "max_u": None}
    assert (found["by_threshold"][0]["recall"] is None) == all(right)


def test_the_standard_error_of_hanley_and_mcneil() -> None:
    # Their formula written out for area 0.8 with 10 and 20 cases.
    q1, q2 = 0.8 / 1.2, 2 * 0.64 / 1.8
    expected = math.sqrt((0.16 + 9 * (q1 - 0.64) + 19 * (q2 - 0.64)) / 200)
    assert auroc_error(0.8, 10, 20) == pytest.approx(expected)
    assert auroc_error(0.5, 1, 1) == 0.5


def test_an_answer_without_a_segment_counts_nowhere() -> None:
    answers = [*ANSWERS, []]
    found = discrimination(answers, [*RIGHT, True], measure(answers, POLICY, None))
    assert found["graded"] == 6


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no answer has a token"):
        measure([[], []], POLICY, None)
