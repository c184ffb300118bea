"""Rollouts to training rows: what was kept as one row, each erased draw as a further row behind its own prefix (F11).

An erased draw's row holds the committed tokens in front of it, masked, and then its own tokens: the text that was
erased is never scored in front of its replacement. Every token keeps the log-probability it was sampled with.

Notation: _R rows, _T tokens of a completion, _P tokens of a prompt, _D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from e3rl_core.credit import CreditRule, ScoredDraw, draw_advantages, kept_density, plain_weight
from e3rl_core.engines.torch_rollout import Rollout, RolloutDraw
from e3rl_training.continuation import Continuation

#: A row whose tokens all carry less than this teaches nothing and is left out.
_NOTHING = 1e-9


#: What of a collated batch is (_R, _T).
_BY_TOKEN = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "advantages",
    "old_per_token_logps",
    "sampling_per_token_logps",
    "ref_per_token_logps",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence to train on. The lists are (_T,), beside `completion`."""

    prompt: Sequence[int]
    completion: Sequence[int]
    mask: Sequence[int]
    """1 for tokens in the loss."""
    advantages: Sequence[float]
    logprobs: Sequence[float]
    """Sampling-time log-probabilities, at the rollout's temperature; nats."""

    @property
    def teaches(self) -> bool:
        return any(m and abs(a) > _NOTHING for m, a in zip(self.mask, self.advantages, strict=True))


#: Fills a batch up to the row count of the other ranks: one token, in nobody's loss.
BLANK = Row(prompt=(0,), completion=(0,), mask=(0,), advantages=(0.0,), logprobs=(0.0,))


def scored(draws: Sequence[RolloutDraw]) -> list[ScoredDraw]:
    """The draws as credit sees them."""
    return [ScoredDraw(draw.segment, len(draw.tokens), draw.uncertainty.u, draw.kept) for draw in draws]


def response_rows(
    prompt: Sequence[int],
    rollout: Rollout,
    advantage: float,
    rule: CreditRule,
    *,
    erase_rates: Sequence[Sequence[float]] = (),
    mass: Sequence[float] | None = None,
) -> list[Row]:
    """The rows of one response: the kept tokens first, then one row for each erased draw that teaches something.

    `advantage` is the response's (F8). `erase_rates` (_S, _R) holds P(U > Theta_a) at each segment index and attempt,
    for `rule.plain_weight`; `mass` (_S,) the attention mass, for `rule.allocation` attention.
    """
    values = draw_advantages(advantage, scored(rollout.draws), rule, mass)
    weight = _plain_weight(rollout, erase_rates, rule) if rule.plain_weight else 1.0
    kept: list[float] = []
    erased: list[Row] = []
    for draw, value in zip(rollout.draws, values, strict=True):
        if draw.kept:
            kept += [weight * value] * len(draw.tokens)
        else:
            erased.append(_erased_row(prompt, rollout, draw, value))
    whole = Row(prompt, rollout.tokens, [1] * len(rollout.tokens), kept, rollout.logprobs)
    return [whole, *(row for row in erased if row.teaches)]


def continued_row(prompt: Sequence[int], rollout: Rollout, continuation: Continuation, advantage: float) -> Row:
    """An erased draw that was continued to the end: a sibling with its own return on a shared prefix [ours]."""
    start, length = continuation.start, len(continuation.tokens)
    return Row(
        prompt,
        continuation.completion(rollout),
        [0] * start + [1] * length,
        [0.0] * start + [advantage] * length,
        [0.0] * start + list(continuation.logprobs),
    )


def _erased_row(prompt: Sequence[int], rollout: Rollout, draw: RolloutDraw, value: float) -> Row:
    length = len(draw.tokens)
    return Row(
        prompt,
        [*rollout.tokens[: draw.start], *draw.tokens],
        [0] * draw.start + [1] * length,
        [0.0] * draw.start + [value] * length,
        [0.0] * draw.start + list(draw.logprobs),
    )


def _plain_weight(rollout: Rollout, erase_rates: Sequence[Sequence[float]], rule: CreditRule) -> float:
    """p/q: thresholds grow with the attempt, and the first one its U does not exceed would have accepted a draw."""
    densities = []
    for draw in rollout.draws:
        if draw.kept:
            thresholds = [other.threshold for other in rollout.draws if other.segment == draw.segment]
            accepting = (attempt for attempt, limit in enumerate(thresholds) if draw.uncertainty.u <= limit)
            densities.append(kept_density(next(accepting, draw.attempt), erase_rates[draw.segment]))
    return plain_weight(densities, rule.weight_bounds)


def fill(rows: Sequence[Row], count: int) -> list[Row]:
    """The rows and as many blank ones as make `count`."""
    return [*rows, *[BLANK] * (count - len(rows))]


def collate(rows: Sequence[Row], pad_id: int, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Rows as the padded batch that TRL's loss takes: prompts padded on the left, completions on the right.

    Returns:
        prompt_ids, prompt_mask (_R, _P); completion_ids, completion_mask, tool_mask, advantages, old_per_token_logps,
        sampling_per_token_logps (_R, _T). `completion_mask` is what is attended to, `tool_mask` what is in the loss.
    """
    width = max(len(row.completion) for row in rows)
    longest = max(len(row.prompt) for row in rows)

    def left(values: Sequence[int], blank: int) -> list[int]:
        return [blank] * (longest - len(values)) + list(values)

    def right(values: Sequence[float], blank: float) -> list[float]:
        return [*values, *[blank] * (width - len(values))]

    logprobs = torch.tensor([right(row.logprobs, 0.0) for row in rows], device=device)
    integer = torch.long
    return {
        "prompt_ids": torch.tensor([left(row.prompt, pad_id) for row in rows], dtype=integer, device=device),
        "prompt_mask": torch.tensor([left([1] * len(row.prompt), 0) for row in rows], dtype=integer, device=device),
        "completion_ids": torch.tensor([right(row.completion, pad_id) for row in rows], dtype=integer, device=device),
        "completion_mask": torch.tensor(
            [right([1] * len(row.completion), 0) for row in rows], dtype=integer, device=device
        ),
        "tool_mask": torch.tensor([right(row.mask, 0) for row in rows], dtype=integer, device=device),
        "advantages": torch.tensor([right(row.advantages, 0.0) for row in rows], device=device),
        "old_per_token_logps": logprobs,
        "sampling_per_token_logps": logprobs,
    }


def split_rows(batch: dict[str, torch.Tensor], most: int | None) -> list[dict[str, torch.Tensor]]:
    """A collated batch in parts of at most `most` rows, the shorter completions together and cut to their length.

    Tensors that are not by row, such as the loss's normaliser, are in every part. None: one part, as it is.
    """
    count = len(batch["completion_ids"])
    if most is None or count <= most:
        return [batch]
    lengths = batch["completion_mask"].sum(1)
    order = lengths.argsort(stable=True)
    parts = []
    for start in range(0, count, most):
        rows = order[start : start + most]
        longest = max(1, int(lengths[rows].max()))
        part = {}
        for name, value in batch.items():
            by_row = value[rows] if value.dim() else value
            part[name] = by_row[:, :longest] if name in _BY_TOKEN else by_row
        parts.append(part)
    return parts
