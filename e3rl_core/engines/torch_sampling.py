"""One sampling step of a batch whose rows have their own temperatures and random streams.

Notation: _B rows, _V vocabulary. Everything is in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sampled:
    """One row's new token and what the model thought of it."""

    token: int
    surprisal: float
    """-log p under the raw logits, at temperature 1 (F1 [paper])."""
    entropy: float
    """Of the raw distribution the token was drawn from (F1, the alternative signal)."""
    logprob: float
    """log p at the temperature it was drawn at, before top-p; the raw log p if it was drawn greedily."""


def sample(
    logits: torch.Tensor,
    temperatures: Sequence[float],
    generators: Sequence[torch.Generator],
    *,
    top_p: float = 1.0,
    forced: Sequence[int | None] | None = None,
) -> list[Sampled]:
    """Draw one token per row, by inverting the cumulative distribution at one uniform number per row.

    One number per token from the row's own stream: what a row draws does not depend on who else is in the batch.

    Args:
        logits: raw, (_B, _V), float32.
        temperatures: (_B,); 0 takes the likeliest token.
        generators: (_B,), on the CPU; rows at temperature 0 leave theirs alone.
        top_p: mass of the nucleus that tokens are drawn from.
        forced: (_B,); a token to take in place of drawing one.
    """
    raw = logits.log_softmax(-1)
    heat = torch.tensor([t or 1.0 for t in temperatures], device=logits.device).unsqueeze(-1)
    tempered = (logits / heat).log_softmax(-1)
    tokens = raw.argmax(-1)
    warm = [row for row, t in enumerate(temperatures) if t > 0]
    if warm:
        uniform = torch.stack([torch.rand((), dtype=torch.float64, generator=generators[row]) for row in warm])
        tokens[warm] = invert(nucleus(tempered[warm], top_p), uniform.to(logits.device))
    for row, token in enumerate(forced or ()):
        if token is not None:
            tokens[row] = token
    chosen = tokens.unsqueeze(-1)
    columns = (
        tokens.tolist(),
        (-raw.gather(-1, chosen)).squeeze(-1).tolist(),
        (-(raw.exp() * raw.clamp(min=-1e30)).sum(-1)).tolist(),  # a logit of -inf adds 0, not nan
        tempered.gather(-1, chosen).squeeze(-1).tolist(),
    )
    return [Sampled(*values) for values in zip(*columns, strict=True)]


def nucleus(logprobs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities with all but the smallest set of likeliest tokens of mass `top_p` at 0. (_B, _V)."""
    probabilities = logprobs.exp().double()
    if top_p >= 1.0:
        return probabilities
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked[ranked.cumsum(-1) - ranked >= top_p] = 0.0  # the mass before a token has reached top_p without it
    return torch.zeros_like(probabilities).scatter_(-1, order, ranked)


def invert(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token at which the cumulative distribution passes `uniform` of its total. (_B, _V), (_B,) to (_B,)."""
    cumulative = probabilities.cumsum(-1)
    target = uniform.unsqueeze(-1) * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return token.clamp(max=probabilities.shape[-1] - 1)
