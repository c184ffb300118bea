"""Credit: what reaches which draw, F8-F10."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3rl_core.credit import (
    CreditRule,
    ScoredDraw,
    allocate,
    contrast,
    draw_advantages,
    group_advantages,
    kept_density,
    plain_weight,
)

LENGTHS = st.integers(1, 600)
UNCERTAINTIES = st.floats(0, 50, allow_nan=False)
CHECKPOINT = st.lists(st.tuples(LENGTHS, UNCERTAINTIES), min_size=1, max_size=6)


def draws_of(checkpoints: list[list[tuple[int, float]]]) -> list[ScoredDraw]:
    """The last draw at each checkpoint is the kept one."""
    return [
        ScoredDraw(segment, tokens, u, kept=place == len(at) - 1)
        for segment, at in enumerate(checkpoints)
        for place, (tokens, u) in enumerate(at)
    ]


RESPONSES = st.lists(CHECKPOINT, min_size=1, max_size=5).map(draws_of)


def test_group_advantages_are_centred() -> None:
    assert group_advantages([1.0, 0.0, 0.0, 0.0], scale=False) == [0.75, -0.25, -0.25, -0.25]


def test_scaled_group_advantages_have_unit_deviation() -> None:
    scaled = group_advantages([1.0, 0.0], scale=True)
    assert scaled == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


def test_a_group_without_variance_teaches_nothing() -> None:
    assert group_advantages([1.0, 1.0, 1.0], scale=True) == [0.0, 0.0, 0.0]
    assert group_advantages([1.0], scale=True) == [0.0]


@given(CHECKPOINT)
def test_contrast_sums_to_zero_over_tokens(at: list[tuple[int, float]]) -> None:
    draws = draws_of([at])
    total = sum(draw.tokens * z for draw, z in zip(draws, contrast(draws), strict=True))
    assert total == pytest.approx(0.0, abs=1e-6)


def test_contrast_prefers_the_surer_draw() -> None:
    unsure, sure = contrast([ScoredDraw(0, 6, 2.0, False), ScoredDraw(0, 6, 1.0, True)])
    assert sure == pytest.approx(1.0, abs=1e-4)
    assert unsure == pytest.approx(-1.0, abs=1e-4)


@given(RESPONSES, st.sampled_from(["uniform", "uncertainty", "attention"]))
def test_allocation_keeps_the_sum_over_kept_tokens(draws: list[ScoredDraw], allocation: str) -> None:
    kept = [draw for draw in draws if draw.kept]
    omegas = allocate(draws, allocation, [draw.u for draw in kept])  # type: ignore[arg-type]
    assert min(omegas) >= 0
    total = sum(draw.tokens for draw in kept)
    assert sum(draw.tokens * omega for draw, omega in zip(kept, omegas, strict=True)) == pytest.approx(total)


def test_attention_allocation_is_mass_per_token() -> None:
    draws = [ScoredDraw(0, 10, 1.0, True), ScoredDraw(1, 10, 1.0, True)]
    assert allocate(draws, "attention", [3.0, 1.0]) == pytest.approx([1.5, 0.5])


def test_attention_allocation_needs_a_mass_per_segment() -> None:
    with pytest.raises(ValueError, match="one mass for each of 1"):
        allocate([ScoredDraw(0, 1, 1.0, True)], "attention")


ERASED_ONCE = [ScoredDraw(0, 4, 3.0, False), ScoredDraw(0, 4, 1.0, True), ScoredDraw(1, 2, 1.0, True)]


@pytest.mark.parametrize(
    ("rule", "advantage", "expected"),
    [
        (CreditRule(mode="unbiased"), 2.0, [2.0, 2.0, 2.0]),
        (CreditRule(mode="kept_only"), 2.0, [0.0, 2.0, 2.0]),
        (CreditRule(mode="contrastive", alpha=0.5), 2.0, [-1.0, 3.0, 2.0]),
        (CreditRule(mode="contrastive", alpha=0.5), -2.0, [0.0, -2.0, -2.0]),
        (CreditRule(mode="contrastive", alpha=0.5, gate="one"), -2.0, [-0.5, -1.5, -2.0]),
    ],
)
def test_modes(rule: CreditRule, advantage: float, expected: list[float]) -> None:
    assert draw_advantages(advantage, ERASED_ONCE, rule) == pytest.approx(expected, abs=1e-5)


def test_uncertainty_allocation_reaches_erased_draws_of_its_segment() -> None:
    rule = CreditRule(mode="unbiased", allocation="uncertainty")
    values = draw_advantages(
        1.0, [ScoredDraw(0, 1, 9.0, False), ScoredDraw(0, 1, 3.0, True), ScoredDraw(1, 1, 1.0, True)], rule
    )
    assert values == pytest.approx([1.5, 1.5, 0.5])


def test_a_checkpoint_keeps_exactly_one_draw() -> None:
    with pytest.raises(ValueError, match="segment 0 has 2 kept draws"):
        draw_advantages(1.0, [ScoredDraw(0, 1, 1.0, True), ScoredDraw(0, 1, 1.0, True)], CreditRule())


@given(st.floats(0.0, 0.99), st.integers(0, 6))
def test_density_with_one_threshold_is_the_geometric_sum(e: float, retries: int) -> None:
    accepted, forced = kept_density(0, [e] * retries), kept_density(retries, [e] * retries)
    assert accepted == pytest.approx(sum(e**a for a in range(retries + 1)))
    assert forced == pytest.approx(e**retries)


@given(st.lists(st.floats(0.0, 1.0), max_size=6))
def test_kept_densities_average_to_one(rates: list[float]) -> None:
    """q is a distribution: mass first accepted at attempt a is e_(a-1) - e_a, as thresholds grow."""
    rates = sorted(rates, reverse=True)
    bounds = [1.0, *rates, 0.0]
    total = sum((bounds[a] - bounds[a + 1]) * kept_density(a, rates) for a in range(len(rates) + 1))
    assert total == pytest.approx(1.0)


def test_the_plain_weight_is_the_inverse_density_of_the_whole_response() -> None:
    assert plain_weight([1.5, 0.5], (0.5, 2.0)) == pytest.approx(1 / 0.75)


def test_the_plain_weight_is_truncated() -> None:
    assert plain_weight([0.1], (0.5, 2.0)) == 2.0
    assert plain_weight([0.0], (0.5, 2.0)) == 2.0
    assert plain_weight([9.0], (0.5, 2.0)) == 0.5
