"""Rollouts to rows: F11, the p/q weight, and what is padded."""

from __future__ import annotations

import pytest
import torch

from e3rl_core.credit import CreditRule
from e3rl_core.engines.torch_rollout import Rollout, RolloutDraw
from e3rl_core.healer import Totals
from e3rl_core.uncertainty import Uncertainty
from e3rl_training.continuation import Continuation, choose, finish
from e3rl_training.rows import BLANK, Row, collate, continued_row, fill, response_rows, split_rows

PROMPT = [9, 9]
KEPT_ONLY = CreditRule(mode="kept_only")


def draw(segment: int, attempt: int, start: int, tokens: tuple[int, ...], u: float, *, kept: bool) -> RolloutDraw:
    logprobs = tuple(-token / 10 for token in tokens)
    return RolloutDraw(
        segment=segment,
        attempt=attempt,
        start=start,
        tokens=tokens,
        surprisals=tuple(-value for value in logprobs),
        logprobs=logprobs,
        temperature=1.0,
        uncertainty=Uncertainty(u, u, u, 0.0),
        threshold=1.0,
        kept=kept,
        reason=None if kept else "uncertainty",
    )


@pytest.fixture
def response() -> Rollout:
    """Two segments; in front of the second, two draws were erased."""
    draws = (
        draw(0, 0, 0, (1, 2), 0.5, kept=True),
        draw(1, 0, 2, (3, 4, 5), 2.0, kept=False),
        draw(1, 1, 2, (6,), 1.5, kept=False),
        draw(1, 2, 2, (7, 8), 0.8, kept=True),
    )
    logprobs = (*draws[0].logprobs, *draws[3].logprobs)
    return Rollout(
        tokens=(1, 2, 7, 8),
        surprisals=tuple(-value for value in logprobs),
        logprobs=logprobs,
        draws=draws,
        finish="stop",
        totals=Totals(committed_tokens=4, erased_tokens=4, erasures=2),
        forward_tokens=9,
    )


def test_an_erased_draw_stands_behind_its_own_prefix(response: Rollout) -> None:
    whole, first, second = response_rows(PROMPT, response, 1.0, CreditRule(mode="unbiased"))
    assert (list(whole.completion), list(whole.mask)) == ([1, 2, 7, 8], [1, 1, 1, 1])
    assert (list(first.completion), list(first.mask)) == ([1, 2, 3, 4, 5], [0, 0, 1, 1, 1])
    assert (list(second.completion), list(second.mask)) == ([1, 2, 6], [0, 0, 1])
    assert list(first.logprobs) == [0.0, 0.0, -0.3, -0.4, -0.5]
    assert list(second.advantages) == [0.0, 0.0, 1.0]


def test_rows_without_advantage_are_left_out(response: Rollout) -> None:
    assert len(response_rows(PROMPT, response, 1.0, KEPT_ONLY)) == 1
    assert len(response_rows(PROMPT, response, 0.0, CreditRule(mode="unbiased"))) == 1


def test_contrast_sums_to_zero_over_a_checkpoints_tokens(response: Rollout) -> None:
    rule = CreditRule(mode="contrastive", alpha=0.5)
    rows = response_rows(PROMPT, response, 1.0, rule)
    plain = response_rows(PROMPT, response, 1.0, KEPT_ONLY)
    assert sum(sum(row.advantages) for row in rows) == pytest.approx(sum(sum(row.advantages) for row in plain))
    assert sum(rows[1].advantages) < 0


def test_the_plain_weight_is_one_over_the_density_ratio(response: Rollout) -> None:
    """q/p of segment 0: accepted at once; of segment 1: accepted by every attempt's threshold."""
    rates = [[0.5, 0.25], [0.5, 0.25]]
    rule = CreditRule(mode="kept_only", plain_weight=True, weight_bounds=(0.01, 100.0))
    row = response_rows(PROMPT, response, 1.0, rule, erase_rates=rates)[0]
    density = (1 + 0.5 + 0.125) ** 2
    assert list(row.advantages) == pytest.approx([1 / density] * 4)


def test_continued_draws_share_the_prefix(response: Rollout) -> None:
    row = continued_row(PROMPT, response, Continuation(0, 2, (3, 4, 5, 1), (-0.3, -0.4, -0.5, -0.1)), 2.0)
    assert list(row.completion) == [1, 2, 3, 4, 5, 1]
    assert list(row.mask) == [0, 0, 1, 1, 1, 1]
    assert list(row.advantages) == [0.0, 0.0, 2.0, 2.0, 2.0, 2.0]


def test_continuing_asks_for_what_is_open_and_cuts_at_the_limit(response: Rollout) -> None:
    chosen = choose([response], 1.0, 0)
    asked: list[list[list[int]]] = []

    def sample(contexts: list[list[int]]) -> list[Rollout]:
        asked.append(contexts)
        return [response] * len(contexts)

    done = finish(chosen, [PROMPT], [response], sample=sample, max_tokens=6, eos_ids=[6])
    assert asked == [[[9, 9, 1, 2, 3, 4, 5]]]  # the second erased draw ended in an end of sequence
    assert [one.tokens for one in done] == [(3, 4, 5, 1), (6,)]


def test_choosing_is_by_seed(response: Rollout) -> None:
    assert choose([response] * 50, 0.3, 1) == choose([response] * 50, 0.3, 1)
    assert 15 < len(choose([response] * 50, 0.3, 1)) < 45
    assert choose([response] * 50, 0.0, 1) == []


def test_a_batch_is_padded_left_and_right() -> None:
    rows = [Row([5], [1, 2], [1, 1], [1.0, 1.0], [-1.0, -2.0]), Row([5, 6], [3], [1], [2.0], [-3.0])]
    batch = collate(rows, 0, "cpu")
    assert batch["prompt_ids"].tolist() == [[0, 5], [5, 6]]
    assert batch["prompt_mask"].tolist() == [[0, 1], [1, 1]]
    assert batch["completion_ids"].tolist() == [[1, 2], [3, 0]]
    assert batch["completion_mask"].tolist() == batch["tool_mask"].tolist() == [[1, 1], [1, 0]]
    assert torch.equal(batch["old_per_token_logps"], torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]))


def test_blank_rows_are_in_nobodys_loss() -> None:
    assert fill([BLANK], 3) == [BLANK] * 3
    assert not BLANK.teaches


def test_a_split_keeps_every_row_and_cuts_padding() -> None:
    rows = [Row([5], [n] * n, [1] * n, [1.0] * n, [-1.0] * n) for n in (3, 1, 4, 2)]
    batch = {**collate(rows, 0, "cpu"), "num_items_in_batch": torch.tensor(10)}
    short, long = split_rows(batch, 2)
    assert short["completion_ids"].tolist() == [[1, 0], [2, 2]]
    assert long["completion_ids"].tolist() == [[3, 3, 3, 0], [4, 4, 4, 4]]
    assert short["prompt_ids"].shape == (2, 1)
    assert short["advantages"].shape == (2, 2)
    assert short["num_items_in_batch"] == 10
    assert split_rows(batch, 4) == [batch]
    assert split_rows(batch, None) == [batch]
