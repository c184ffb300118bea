"""The calibrator: moments of first draws, erase rates, and a state that survives a file."""

import pytest

from e3rl_core.calibration import Calibrator


def test_nothing_seen_is_no_profile() -> None:
    assert Calibrator().profile() is None


def test_moments_are_those_of_first_draws() -> None:
    calibrator = Calibrator(prior_draws=0.0)
    for attempt, u in [(0, 1.0), (0, 3.0), (1, 99.0)]:
        calibrator.see(0, attempt, u, False)
    profile = calibrator.profile()
    assert profile is not None
    assert (profile.mean, profile.std, profile.segments) == ((2.0,), (1.0,), 2)


def test_a_rare_segment_leans_on_the_others() -> None:
    calibrator = Calibrator(prior_draws=1.0)
    for _ in range(9):
        calibrator.see(0, 0, 1.0, False)
    calibrator.see(1, 0, 11.0, False)
    assert calibrator.moments(1).mean == pytest.approx((11.0 + 2.0) / 2)  # 2.0 is the mean over all


def test_older_batches_count_less() -> None:
    calibrator = Calibrator(decay=0.5, prior_draws=0.0)
    calibrator.see(0, 0, 4.0, False)
    calibrator.age()
    calibrator.see(0, 0, 1.0, False)
    assert calibrator.moments(0).mean == pytest.approx((0.5 * 4.0 + 1.0) / 1.5)


def test_erase_rates_by_attempt() -> None:
    calibrator = Calibrator()
    for exceeded in (True, True, False, False):
        calibrator.see(0, 0, 1.0, exceeded)
    calibrator.see(0, 1, 1.0, True)
    assert calibrator.erase_rates(0, 3) == [0.5, 1.0, 1.0]
    assert calibrator.erase_rates(7, 2) == [0.0, 0.0]


def test_the_state_survives_a_file_bit_for_bit() -> None:
    calibrator = Calibrator(decay=0.9)
    for step in range(50):
        calibrator.age()
        calibrator.see(step % 3, step % 2, 0.1 * step, step % 5 == 0)
    again = Calibrator.model_validate_json(calibrator.model_dump_json())
    assert again == calibrator
    assert again.profile() == calibrator.profile()
