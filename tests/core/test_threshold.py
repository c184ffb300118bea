"""F4-F5 against numpy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3rl_core.policy import ThresholdRule
from e3rl_core.threshold import GroupHistory, Moments, OwnHistory, baseline, threshold

us = st.lists(st.floats(0.0, 20.0), max_size=30)
positive = st.floats(0.01, 20.0)


@given(us, st.floats(0.1, 1.0), positive, positive, st.floats(0.1, 20.0))
def test_f4_own_history_is_a_weighted_sample_with_the_prior_in_it(
    values: list[float], decay: float, mean: float, std: float, n0: float
) -> None:
    history = OwnHistory(decay)
    for u in values:
        history.add(u)
    # The prior as two points with its moments, each worth n0 / 2 segments.
    points = np.array([*values, mean - std, mean + std])
    weights = np.array([*(decay ** np.arange(len(values))[::-1]), n0 / 2, n0 / 2])
    expected = np.average(points, weights=weights)
    spread = np.sqrt(np.average((points - expected) ** 2, weights=weights))
    got = history.shrunk(Moments(mean, std), n0)
    assert (got.mean, got.std) == pytest.approx((expected, spread), rel=1e-6, abs=1e-5)


def test_without_history_the_prior_is_all_there_is() -> None:
    assert OwnHistory(0.9).shrunk(Moments(1.0, 0.5), 4.0) == Moments(1.0, 0.5)
    assert OwnHistory(0.9).mean is None


def test_history_mean_is_plain_not_decayed() -> None:
    history = OwnHistory(0.1)
    history.add(1.0)
    history.add(3.0)
    assert history.mean == 2.0


@given(st.lists(st.floats(0.0, 20.0), min_size=2, max_size=8), st.data())
def test_f4_group_leaves_its_asker_out(values: list[float], data: st.DataObject) -> None:
    group = GroupHistory()
    for member, u in enumerate(values):
        group.add(3, member, u)
    asker = data.draw(st.integers(0, len(values) - 1))
    others = [u for member, u in enumerate(values) if member != asker]
    got = group.without(3, asker, lone_std=0.7)
    assert got is not None
    assert got.mean == pytest.approx(np.mean(others), abs=1e-9)
    assert got.std == pytest.approx(np.std(others, ddof=1) if len(others) > 1 else 0.7, abs=1e-6)


def test_group_counts_first_draws_only() -> None:
    group = GroupHistory()
    group.add(0, 1, 4.0)
    group.add(0, 1, 1.0)
    assert group.without(0, 0, lone_std=0.0) == Moments(4.0, 0.0)


def test_a_group_of_oneself_is_no_group() -> None:
    group = GroupHistory()
    group.add(0, 0, 4.0)
    assert group.without(0, 0, 0.5) is None
    assert group.without(1, 0, 0.5) is None


def test_f4_blends_own_and_group_bars() -> None:
    rule = ThresholdRule(k=2.0, group_weight=0.25)
    assert baseline(Moments(1.0, 0.5), Moments(3.0, 1.0), rule) == 0.75 * 2.0 + 0.25 * 5.0
    assert baseline(Moments(1.0, 0.5), None, rule) == 2.0


@given(positive, st.none() | st.floats(0.0, 40.0), st.floats(0.0, 4.0), st.integers(0, 10))
def test_f5(beta: float, history: float | None, eta: float, erasures: int) -> None:
    rule = ThresholdRule(eta=eta, gamma=1.5, floor=0.0)
    phi = 1.0 if history is None else float(np.clip(history / 2.0, 0.5, 2.0)) ** eta
    assert threshold(beta, history, Moments(2.0, 1.0), erasures, rule) == pytest.approx(beta * phi * 1.5**erasures)


def test_a_calm_response_is_held_to_a_lower_bar_and_a_wild_one_to_a_higher() -> None:
    rule, prior = ThresholdRule(), Moments(1.0, 0.5)
    calm, usual, wild = (threshold(2.0, history, prior, 0, rule) for history in (0.5, 1.0, 2.0))
    assert calm < usual < wild


@given(positive, st.floats(1.01, 3.0))
def test_thresholds_rise_with_every_erasure(beta: float, gamma: float) -> None:
    rule = ThresholdRule(gamma=gamma, floor=0.0)
    bars = [threshold(beta, None, Moments(1.0, 1.0), e, rule) for e in range(8)]
    assert all(low < high for low, high in pairwise(bars))


def test_no_threshold_is_below_the_floor() -> None:
    assert threshold(-5.0, None, Moments(1.0, 1.0), 3, ThresholdRule(floor=0.3)) == 0.3
    assert threshold(0.1, None, Moments(0.0, 0.0), 0, ThresholdRule(floor=0.3)) == 0.3


def test_a_prior_of_zero_does_not_modulate() -> None:
    assert threshold(2.0, 9.0, Moments(0.0, 0.0), 0, ThresholdRule()) == 2.0
