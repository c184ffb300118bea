"""Final reward to one advantage per draw: formulas F8-F11, and the weight that makes erased rollouts plain ones.

All functions take one response's draws in the order drawn and return a list beside them; every token of a draw
carries its draw's value. What is exact and what is not (tests/core/test_credit_exactness.py enumerates it):

    unbiased      all draws carry the response's advantage: the exact gradient of the policy that erases too
    kept_only     erased draws carry nothing: biased for both policies; an ablation
    contrastive   kept_only plus a comparison of the draws at one checkpoint that sums to zero over their tokens
    plain weights (`plain_weight`) on kept_only: the exact gradient of the policy that does not erase, if not truncated
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CreditMode = Literal["unbiased", "contrastive", "kept_only"]
Allocation = Literal["uniform", "attention", "uncertainty"]

_EPS = 1e-6


class CreditRule(BaseModel):
    """F8-F11: how a response's reward reaches its draws."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mode: CreditMode = Field("contrastive", description="F10: what erased draws learn from [ours].")
    alpha: float = Field(0.25, ge=0.0, le=0.5, description="F10: weight of the contrast, mode contrastive [ours].")
    gate: Literal["positive", "one"] = Field(
        "positive", description="F10: g, the contrast's scale: max(A, 0), or 1 whatever the reward [ours]."
    )
    allocation: Allocation = Field("uniform", description="F9: how the advantage spreads over kept segments.")
    plain_weight: bool = Field(
        False, description="Weight kept tokens by p/q: train the policy that does not erase [ours]; needs kept_only."
    )
    weight_bounds: tuple[float, float] = Field((0.5, 2.0), description="Truncation of p/q: bounded variance for bias.")


@dataclass(frozen=True, slots=True)
class ScoredDraw:
    """What credit needs to know of one draw."""

    segment: int
    tokens: int
    """Its length |s_d|, tokens."""
    u: float
    """Its uncertainty, nats."""
    kept: bool


def group_advantages(rewards: Sequence[float], *, scale: bool) -> list[float]:
    """F8: A_i = R_i - mean R, over std R (n - 1) if `scale`; a group without variance gets zeros. (_G,) to (_G,)."""
    mean = math.fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if not scale:
        return centred
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    std = math.sqrt(math.fsum(a * a for a in centred) / (len(rewards) - 1))
    return [a / std if std > _EPS else 0.0 for a in centred]


def allocate(draws: Sequence[ScoredDraw], allocation: Allocation, mass: Sequence[float] | None = None) -> list[float]:
    """F9: omega of each kept segment, in order; sum |s_n| omega_n = sum |s_n|.

    `mass` (_S,) is for `attention`: the attention the answer's tokens put on each kept segment.

    Raises:
        ValueError: `attention` without one mass per kept segment.
    """
    kept = [draw for draw in draws if draw.kept]
    if allocation == "uniform":
        return [1.0] * len(kept)
    if allocation == "uncertainty":
        raw = [draw.u for draw in kept]
    elif mass is None or len(mass) != len(kept):
        raise ValueError(f"attention allocation needs one mass for each of {len(kept)} kept segments")
    else:
        raw = [m / draw.tokens for m, draw in zip(mass, kept, strict=True)]
    total = sum(draw.tokens for draw in kept)
    spread = math.fsum(draw.tokens * r for draw, r in zip(kept, raw, strict=True))
    return [r * total / spread for r in raw] if spread > _EPS else [1.0] * len(kept)


def contrast(draws: Sequence[ScoredDraw]) -> list[float]:
    """F10: z of the draws at ONE checkpoint, with sum |s_d| z_d = 0: the surer a draw, the higher.

    z_d = clip((mean U - U_d) / (sigma + eps), -1, 1), re-centred by its mean over tokens.
    """
    mean = math.fsum(draw.u for draw in draws) / len(draws)
    sigma = math.sqrt(math.fsum((draw.u - mean) ** 2 for draw in draws) / len(draws))
    z = [min(1.0, max(-1.0, (mean - draw.u) / (sigma + _EPS))) for draw in draws]
    tokens = sum(draw.tokens for draw in draws)
    centre = math.fsum(draw.tokens * value for draw, value in zip(draws, z, strict=True)) / tokens
    return [value - centre for value in z]


def draw_advantages(
    advantage: float, draws: Sequence[ScoredDraw], rule: CreditRule, mass: Sequence[float] | None = None
) -> list[float]:
    """F10: the advantage that each draw's tokens carry, given the response's. (_D,), in the order of `draws`.

    Raises:
        ValueError: see `allocate`; or a checkpoint without exactly one kept draw.
    """
    omegas = iter(allocate(draws, rule.allocation, mass))
    kappa = 1.0 if rule.mode == "unbiased" else 0.0
    alpha = rule.alpha if rule.mode == "contrastive" else 0.0
    gate = 1.0 if rule.gate == "one" else max(advantage, 0.0)
    values: list[float] = []
    for at_checkpoint in _checkpoints(draws):
        omega = next(omegas)
        z = contrast(at_checkpoint) if len(at_checkpoint) > 1 else [0.0]
        values += [
            (1.0 if draw.kept else kappa) * omega * advantage + alpha * gate * z_d
            for draw, z_d in zip(at_checkpoint, z, strict=True)
        ]
    return values


def _checkpoints(draws: Sequence[ScoredDraw]) -> Iterator[list[ScoredDraw]]:
    for segment, group in groupby(draws, key=lambda draw: draw.segment):
        at_checkpoint = list(group)
        if sum(draw.kept for draw in at_checkpoint) != 1:
            raise ValueError(f"segment {segment} has {sum(d.kept for d in at_checkpoint)} kept draws, not one")
        yield at_checkpoint


def kept_density(accepted_from: int, erase_rates: Sequence[float]) -> float:
    """q/p of a kept segment under R = len(erase_rates) retries, keep last [ours].

    A draw is kept at attempt a if all before were erased and a accepts it, and the last attempt accepts anything:
    q/p = sum over a from `accepted_from` to R of prod_(b<a) e_b. With one threshold, so equal rates, this is
    1 + e + .. + e^R for a draw below it, and e^R for one kept only because no retry was left.

    Args:
        accepted_from: the first attempt whose threshold the draw's U does not exceed; R if there is none.
        erase_rates: (_R,) P(U > Theta_a) of a draw at this checkpoint, at attempts 0 .. R-1.
    """
    reached, density = 1.0, 0.0
    for attempt, rate in enumerate([*erase_rates, 0.0]):
        if attempt >= accepted_from:
            density += reached
        reached *= rate
    return density


def plain_weight(densities: Sequence[float], bounds: tuple[float, float]) -> float:
    """p/q of a whole response, truncated to `bounds`: what makes an erased rollout count as a plain one [ours].

    `densities` (_S,) are the kept segments' q/p. All of them enter: later segments decide the reward of earlier ones.
    """
    low, high = bounds
    return min(high, max(low, 1.0 / max(math.prod(densities), 1e-12)))
