"""Which gradient each mode estimates, by enumeration of every outcome of a small policy: no sampling, no tolerance."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from e3rl_core.credit import CreditRule, ScoredDraw, draw_advantages, kept_density, plain_weight

RETRIES = 2
VOCABULARY = 3
UNSURE = frozenset({1, 2})
"""Tokens over the threshold: drawn before the last attempt, they are erased."""

Logits = np.ndarray  # (VOCABULARY, VOCABULARY): row 0 for the first segment, row 1 + t for the second behind token t


def policy(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def score(logits: np.ndarray, token: int) -> np.ndarray:
    """Gradient of log p(token) in its logits."""
    return np.eye(VOCABULARY)[token] - policy(logits)


def reward(first: int, second: int) -> float:
    return [[1.0, 0.2, -0.7], [0.4, 0.0, 0.9], [-0.3, 2.0, 0.1]][first][second]


def chains() -> Iterator[tuple[int, ...]]:
    """Every way the draws at one checkpoint can go: erased ones, then the kept one."""
    for erased in range(RETRIES + 1):
        for gone in itertools.product(sorted(UNSURE), repeat=erased):
            for kept in range(VOCABULARY):
                if erased == RETRIES or kept not in UNSURE:
                    yield (*gone, kept)


@dataclass
class Outcome:
    probability: float
    reward: float
    draws: list[tuple[int, int, bool]]
    """Row of the logits it was drawn from, token, kept."""


def outcomes(logits: np.ndarray, *, erase: bool) -> Iterator[Outcome]:
    possible = list(chains()) if erase else [(token,) for token in range(VOCABULARY)]
    for first, second in itertools.product(possible, possible):
        row = 1 + first[-1]
        draws = [(0, token, place == len(first) - 1) for place, token in enumerate(first)]
        draws += [(row, token, place == len(second) - 1) for place, token in enumerate(second)]
        probability = float(np.prod([policy(logits[at])[token] for at, token, _ in draws]))
        yield Outcome(probability, reward(first[-1], second[-1]), draws)


def value(logits: np.ndarray, *, erase: bool) -> float:
    return sum(outcome.probability * outcome.reward for outcome in outcomes(logits, erase=erase))


def true_gradient(logits: np.ndarray, *, erase: bool) -> np.ndarray:
    gradient, step = np.zeros_like(logits), 1e-5
    for index in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (value(up, erase=erase) - value(down, erase=erase)) / (2 * step)
    return gradient


def estimated(logits: np.ndarray, rule: CreditRule, *, weigh: bool = False) -> np.ndarray:
    """The expectation of the estimator over erased rollouts; the advantage is the bare reward."""
    gradient = np.zeros_like(logits)
    for outcome in outcomes(logits, erase=True):
        segments = [0 if row == 0 else 1 for row, _, _ in outcome.draws]
        scored = [
            ScoredDraw(segment, 1, float(token in UNSURE), kept)
            for segment, (_, token, kept) in zip(segments, outcome.draws, strict=True)
        ]
        advantages = draw_advantages(outcome.reward, scored, rule)
        densities = [density(logits[row], token) for row, token, kept in outcome.draws if kept]
        ratio = plain_weight(densities, (0.0, 1e9)) if weigh else 1.0
        for (row, token, _), advantage in zip(outcome.draws, advantages, strict=True):
            gradient[row] += outcome.probability * ratio * advantage * score(logits[row], token)
    return gradient


def density(logits: np.ndarray, token: int) -> float:
    rate = float(policy(logits)[sorted(UNSURE)].sum())
    return kept_density(RETRIES if token in UNSURE else 0, [rate] * RETRIES)


LOGITS = [np.random.default_rng(seed).normal(size=(1 + VOCABULARY, VOCABULARY)) for seed in range(3)]


@pytest.mark.parametrize("logits", LOGITS)
def test_kept_density_is_what_erasing_does(logits: np.ndarray) -> None:
    p = policy(logits[0])
    rate = float(p[sorted(UNSURE)].sum())
    q = np.zeros(VOCABULARY)
    for chain in chains():
        q[chain[-1]] += np.prod([p[token] for token in chain])
    expected = [p[t] * kept_density(RETRIES if t in UNSURE else 0, [rate] * RETRIES) for t in range(VOCABULARY)]
    assert q == pytest.approx(np.array(expected), abs=1e-12)
    assert q.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("logits", LOGITS)
def test_unbiased_is_the_gradient_of_the_policy_that_erases(logits: np.ndarray) -> None:
    assert estimated(logits, CreditRule(mode="unbiased")) == pytest.approx(true_gradient(logits, erase=True), abs=1e-8)


@pytest.mark.parametrize("logits", LOGITS)
def test_kept_only_with_plain_weights_is_the_gradient_of_the_plain_policy(logits: np.ndarray) -> None:
    weighed = estimated(logits, CreditRule(mode="kept_only"), weigh=True)
    assert weighed == pytest.approx(true_gradient(logits, erase=False), abs=1e-8)


@pytest.mark.parametrize("erase", [True, False])
@pytest.mark.parametrize("logits", LOGITS)
def test_kept_only_alone_is_biased_for_both(logits: np.ndarray, erase: bool) -> None:
    estimate = estimated(logits, CreditRule(mode="kept_only"))
    assert np.abs(estimate - true_gradient(logits, erase=erase)).max() > 1e-3
