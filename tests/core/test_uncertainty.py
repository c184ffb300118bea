"""F1-F3 against an independent computation in a few lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3rl_core.policy import UncertaintyWeights
from e3rl_core.uncertainty import SurprisalMeter, Uncertainty

surprisals = st.lists(st.floats(0.0, 50.0), min_size=1, max_size=60)


def read(values: list[float], weights: UncertaintyWeights, previous_mean: float | None = None) -> Uncertainty:
    meter = SurprisalMeter(weights)
    for value in values:
        meter.feed(value)
    return meter.read(previous_mean)


def smoothed(values: list[float], rho: float) -> np.ndarray:
    """F2 in closed form, not as a recursion. Shape: (_T,)."""
    c = np.array(values)
    weights = [np.array([rho**t, *((1 - rho) * rho ** (t - s) for s in range(1, t + 1))]) for t in range(len(c))]
    return np.array([w @ c[: t + 1] for t, w in enumerate(weights)])


@given(surprisals, st.floats(0.0, 0.95), st.none() | st.floats(0.0, 50.0))
def test_f2_f3(values: list[float], rho: float, previous_mean: float | None) -> None:
    weights = UncertaintyWeights(smoothing=rho, mean=0.7, max=0.2, rise=0.4)
    got = read(values, weights, previous_mean)
    c = smoothed(values, rho)
    slope = 0.0 if previous_mean is None else c.mean() - previous_mean
    assert (got.mean, got.max, got.slope) == pytest.approx((c.mean(), c.max(), slope), abs=1e-9)
    assert got.u == pytest.approx(0.7 * c.mean() + 0.2 * c.max() + 0.4 * max(0.0, slope), abs=1e-9)


def test_without_smoothing_the_mean_is_the_mean_surprisal() -> None:
    got = read([1.0, 2.0, 6.0], UncertaintyWeights(smoothing=0.0))
    assert (got.mean, got.max) == (3.0, 6.0)


def test_a_fall_in_uncertainty_costs_nothing_and_a_rise_does() -> None:
    weights = UncertaintyWeights(mean=1.0, max=0.0, rise=0.25)
    assert read([1.0], weights, previous_mean=3.0).u == 1.0
    assert read([3.0], weights, previous_mean=1.0).u == 3.5


def test_the_first_segment_has_no_slope() -> None:
    assert read([4.0], UncertaintyWeights(), previous_mean=None).slope == 0.0


@given(surprisals, surprisals)
def test_smoothing_does_not_look_past_a_checkpoint(before: list[float], after: list[float]) -> None:
    meter = SurprisalMeter(UncertaintyWeights())
    for value in before:
        meter.feed(value)
    meter.reset()
    for value in after:
        meter.feed(value)
    assert meter.read(None) == read(after, UncertaintyWeights())


def test_a_segment_without_tokens_has_no_uncertainty() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        SurprisalMeter(UncertaintyWeights()).read(None)
