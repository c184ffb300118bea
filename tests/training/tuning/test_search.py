"""Successive halving on candidates whose worth is known."""

from __future__ import annotations

import pytest

from e3rl_training.tuning.search import Round, halve


def test_the_better_half_goes_on_to_more_problems() -> None:
    rounds = halve(12, 64, lambda candidate, _: -abs(candidate - 7.0))
    assert [(one.problems, len(one.scores)) for one in rounds] == [(16, 12), (32, 6), (64, 3)]
    assert rounds[-1].ranking == [7, 6, 8]


def test_a_candidate_that_shines_on_few_problems_is_found_out() -> None:
    rounds = halve(8, 32, lambda candidate, asked: 1.0 if candidate == 0 and asked < 32 else candidate / 10)
    assert rounds[0].ranking[0] == 0 and rounds[-1].ranking[0] == 7


def test_what_is_asked_grows_and_is_never_too_little() -> None:
    asked: dict[int, list[int]] = {}
    halve(24, 20, lambda candidate, problems: asked.setdefault(candidate, []).append(problems) or candidate)
    assert all(one == sorted(one) for one in asked.values())
    assert {problems for one in asked.values() for problems in one} == {8, 10, 20}


@pytest.mark.parametrize("candidates", [1, 3])
def test_few_candidates_are_all_asked_everything(candidates: int) -> None:
    (only,) = halve(candidates, 10, lambda candidate, _: candidate)
    assert only == Round(10, {one: one for one in range(candidates)})


def test_of_equals_the_earlier_wins() -> None:
    assert halve(3, 10, lambda *_: 0.5)[-1].ranking == [0, 1, 2]
