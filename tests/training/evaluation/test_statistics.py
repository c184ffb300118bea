"""Intervals against all resamples there are, pass@k and AUROC against counting, prices against arithmetic."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from e3rl_training.evaluation.statistics import Bootstrap, Curve, auroc, interval, pass_at, reliability


def test_the_bootstrap_against_every_resample() -> None:
    """Four problems have 256 equally likely resamples: their distribution is the bootstrap's, exactly."""
    values = np.asarray([0.0, 0.25, 0.5, 1.0])
    exact = np.asarray([np.mean(chosen) for chosen in itertools.product(values, repeat=4)])
    drawn = Bootstrap(4, seed=0, resamples=40_000).means(values)
    for mean in np.unique(exact):
        assert np.mean(np.isclose(drawn, mean)) == pytest.approx(np.mean(np.isclose(exact, mean)), abs=0.01)
    found, wanted = interval(values.mean(), drawn), np.percentile(exact, (2.5, 97.5))
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.0626)  # one step of the distribution


def test_the_bootstrap_is_near_the_normal_interval_of_many_problems() -> None:
    values = np.asarray([1.0] * 120 + [0.0] * 280)
    found = Bootstrap(400, seed=1).interval(values)
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.006)


def test_the_bootstrap_against_scipy() -> None:
    """Percentile intervals of a skewed mean and of a paired difference, to a tenth of a standard error."""
    stats = pytest.importorskip("scipy.stats")
    stream = np.random.default_rng(7)
    ours = stream.exponential(size=60)
    theirs = 0.5 * ours + stream.exponential(size=60)
    drawn = Bootstrap(60, seed=1, resamples=20_000)
    settings = {"n_resamples": 20_000, "method": "percentile", "rng": np.random.default_rng(2)}
    mean = stats.bootstrap((ours,), np.mean, **settings).confidence_interval
    difference = stats.bootstrap(
        (ours, theirs), lambda a, b, axis: np.mean(a - b, axis), paired=True, vectorized=True, **settings
    ).confidence_interval
    for values, wanted in ((ours, mean), (ours - theirs, difference)):
        found, error = drawn.interval(values), values.std() / 60**0.5
        assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.1 * error)


def test_differences_are_paired() -> None:
    """Two arms that differ by the same on every problem: no resample can tell anything else."""
    values = np.asarray([0.0, 0.2, 0.4, 0.6])
    found = Bootstrap(4, seed=0).interval((values + 0.1) - values)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1)) and found.excludes_zero


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.sqrt(np.arange(40.0))
    assert Bootstrap(40, 3).interval(values) == Bootstrap(40, 3).interval(values) != Bootstrap(40, 4).interval(values)


@pytest.mark.parametrize(("k", "drawn", "right"), [(1, 4, 1), (2, 4, 1), (3, 5, 2), (4, 4, 0), (2, 3, 3)])
def test_pass_at_k_against_counting(k: int, drawn: int, right: int) -> None:
    chosen = list(itertools.combinations([True] * right + [False] * (drawn - right), k))
    assert pass_at(k, drawn, right) == pytest.approx(sum(map(any, chosen)) / len(chosen))


def test_auroc_against_counting_pairs() -> None:
    stream = random.Random(0)
    positive, negative = ([stream.randrange(6) / 2 + shift for _ in range(40)] for shift in (0.5, 0.0))
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc([], negative) is None


def test_a_price_between_two_sizes_is_mixed() -> None:
    """Plain draws 36, a vote 108: at 54 a quarter of all problems is voted on."""
    right = np.asarray([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    curve = Curve(right, np.asarray([[36.0, 108.0]] * 4))
    assert curve.at(54) == pytest.approx(0.75 * 0.25 + 0.25 * 0.75)
    assert (curve.at(20), curve.paid(20)) == (0.25, 36)
    assert (curve.at(500), curve.paid(500)) == (0.75, 108)


def test_a_size_that_buys_nothing_is_passed_by() -> None:
    """Sizes of 10, 20, 30 and 40 tokens: the second gains nothing over the first, the last less than the third."""
    right = np.asarray([[0.2, 0.2, 0.6, 0.5]])
    curve = Curve.of(right, np.asarray([[10.0, 20.0, 30.0, 40.0]]))
    assert curve.tokens.tolist() == [[10.0, 30.0]]
    assert curve.at(20) == pytest.approx(0.4) and curve.at(40) == pytest.approx(0.6)
    bent = Curve.of(np.asarray([[0.2, 0.5, 0.6]]), np.asarray([[10.0, 20.0, 30.0]]))
    assert bent.tokens.tolist() == [[10.0, 20.0, 30.0]]


def test_a_price_of_the_same_resample() -> None:
    """Where tokens vary with the resample, so do the price and the mix."""
    bootstrap = Bootstrap(3, seed=0, resamples=50)
    curve = Curve(
        np.asarray([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), np.asarray([[10.0, 20.0], [12.0, 30.0], [8.0, 40.0]])
    )
    prices = np.full(50, 15.0)
    tokens, right = bootstrap.means(curve.tokens), bootstrap.means(curve.right)
    share = np.clip((15.0 - tokens[:, 0]) / (tokens[:, 1] - tokens[:, 0]), 0, 1)
    assert curve.resampled(bootstrap, prices) == pytest.approx(right[:, 0] + share * (right[:, 1] - right[:, 0]))


def test_reliability_rises_by_bins() -> None:
    found = reliability([3.0, 1.0, 2.0, 4.0], [False, True, True, False], bins=2)
    assert found == [{"u": 1.5, "accuracy": 1.0, "draws": 2}, {"u": 3.5, "accuracy": 0.0, "draws": 2}]
