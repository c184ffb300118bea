"""Healing over a Hugging Face causal language model: rollouts on any device, and the oracle of the serving engine.

The rules are the healer's (F6-F7); this module samples, and does what the verdicts say: commit, or cut the row back
to its checkpoint and draw again. Rows are independent. They erase at their own times, they never wait for each other,
a row that ends gives its seat in the batch to the next prompt, and what a row draws does not depend on its batch
(unless rows share a group's statistics).

An erased draw costs its own tokens: the last kept token is run again to get the distribution back, and the erased
draw's last token was never run. So a row's forward tokens are prompt + committed + erased - 1, counted and tested.

Notation: _B rows, _T tokens of a response, _S segments, _G groups. Surprisals and uncertainties are in nats.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from e3rl_core.engines.torch_attention import unrepeated
from e3rl_core.engines.torch_cache import RaggedCache
from e3rl_core.engines.torch_sampling import Sampled, sample
from e3rl_core.errors import PolicyError
from e3rl_core.healer import HOLD, Commit, Draw, Erase, Healer, Limit, Reason, Totals, Verdict
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile
from e3rl_core.threshold import GroupHistory
from e3rl_core.uncertainty import Uncertainty

Finish = Literal["stop", "length", "forced"]


@dataclass(frozen=True, slots=True)
class RolloutDraw:
    """One draw, kept or not: what a trainer needs to put it behind its own prefix (F11)."""

    segment: int
    attempt: int
    start: int
    """Committed tokens of the response in front of it: its prefix is prompt + tokens[:start]."""
    tokens: tuple[int, ...]
    surprisals: tuple[float, ...]
    """-log p under the raw logits; nats."""
    logprobs: tuple[float, ...]
    """log p at the temperature it was sampled at (before top-p), or the raw one if that is 0."""
    temperature: float
    uncertainty: Uncertainty
    threshold: float
    kept: bool
    reason: Reason | None = None
    """The reason to erase it, also where a limit or shadow mode kept it from being erased."""
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response."""

    tokens: tuple[int, ...]
    """Committed tokens, the end-of-sequence token included. (_T,)"""
    surprisals: tuple[float, ...]
    """(_T,), nats."""
    logprobs: tuple[float, ...]
    """(_T,); see `RolloutDraw.logprobs`."""
    draws: tuple[RolloutDraw, ...]
    """Every draw in the order drawn; exactly one per segment is kept. Empty where nothing was scored (mode off)."""
    finish: Finish
    """stop: an end-of-sequence token; length: `max_tokens`; forced: the given tokens ran out."""
    totals: Totals
    forward_tokens: int
    """Tokens of this row that went through the model, the prompt's and the recomputed ones included."""


def rollout(
    model: Any,
    prompts: Sequence[Sequence[int]],
    policy: HealingPolicy | Sequence[HealingPolicy],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    eos_ids: Sequence[int] = (),
    boundaries: bytes | None = None,
    reasoning_end: int | None = None,
    profile: Profile | None = None,
    groups: Sequence[int] | None = None,
    seed: int = 0,
    forced: Sequence[Sequence[int]] | None = None,
    seats: int | None = None,
) -> list[Rollout]:
    """Sample one healed response per prompt.

    Args:
        model: a causal language model with full attention; put into evaluation mode for the time of the call.
        prompts: (_B,) token id sequences, none empty.
        policy: one for all, or one per prompt (a share of plain rollouts has mode ``off``).
        max_tokens: upper bound of each response's committed tokens.
        temperature: of first draws; redraws follow `policy.retry`. 0 is greedy.
        top_p: nucleus that draws are sampled from; scores and logprobs do not see it.
        eos_ids: a response ends with any of these.
        boundaries: one byte per token id (`segmentation.boundary_table`); without it segments end by length alone.
        reasoning_end: the token that ends the reasoning; needed for `scope: reasoning`.
        profile: the prior to score against.
        groups: (_B,) a group id per prompt; rows of one group share its statistics (F4), as siblings do.
        seed: row i draws from the random stream seed + i.
        forced: (_B,) tokens to take in place of sampling, erased draws included, in the order drawn: the same scores
            and decisions as when they were sampled. A response ends where they do.
        seats: responses in the batch at once; without it all of them.

    Raises:
        ValueError: an empty prompt, a negative or zero `max_tokens` or `seats`, or lengths that do not match.
        PolicyError: `scope: reasoning` without `reasoning_end`.
        EngineRefusal: the model's cache cannot be rolled back.
    """
    policies = [policy] * len(prompts) if isinstance(policy, HealingPolicy) else list(policy)
    _check(prompts, policies, max_tokens, reasoning_end, groups, forced, seats)
    limits = _Limits(max_tokens, frozenset(eos_ids), boundaries, reasoning_end)
    histories = {group: GroupHistory() for group in groups or ()}
    rows = [
        _Row(
            index=index,
            tokens=list(prompt),
            prompt_length=len(prompt),
            healer=Healer(policies[index], profile, histories[groups[index]] if groups else None, index),
            base_temperature=temperature,
            generator=torch.Generator().manual_seed(seed + index),
            limits=limits,
            forced=iter(forced[index]) if forced is not None else None,
            left=len(forced[index]) if forced is not None else 0,
        )
        for index, prompt in enumerate(prompts)
    ]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), unrepeated(model):
            results = _decode(model, rows, top_p, seats or len(rows))
    finally:
        model.train(training)
    return [results[index] for index in range(len(prompts))]


def _check(
    prompts: Sequence[Sequence[int]],
    policies: Sequence[HealingPolicy],
    max_tokens: int,
    reasoning_end: int | None,
    groups: Sequence[int] | None,
    forced: Sequence[Sequence[int]] | None,
    seats: int | None,
) -> None:
    for name, count in (("max_tokens", max_tokens), ("seats", seats)):
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}, it must be at least 1")
    for name, rows in (("policy", policies), ("groups", groups), ("forced", forced)):
        if rows is not None and len(rows) != len(prompts):
            raise ValueError(f"{name} has {len(rows)} entries for {len(prompts)} prompts")
    for name, sequences in (("prompt", prompts), ("forced", forced or ())):
        if not all(len(sequence) for sequence in sequences):
            raise ValueError(f"{name} without tokens")
    if reasoning_end is None and any(policy.scope == "reasoning" for policy in policies):
        raise PolicyError("healing.scope", "'reasoning' needs the token that ends the reasoning (reasoning_end)")


def _decode(model: Any, rows: list[_Row], top_p: float, seats: int) -> dict[int, Rollout]:
    """Rows that may erase first: they take longer, and plain ones fill the seats that fall free at the end."""
    results: dict[int, Rollout] = {}
    waiting = deque(sorted(rows, key=lambda row: row.healer.policy.mode != "on"))
    seated: list[_Row] = []
    cache = RaggedCache(model)
    while waiting or seated:
        logits = [cache.step([row.tokens[-1] for row in seated])] if seated else []
        for row in seated:
            row.forward_tokens += 1
        newcomers = [waiting.popleft() for _ in range(min(seats - len(seated), len(waiting)))]
        if newcomers:
            logits.append(cache.admit([row.tokens for row in newcomers]))
            seated += newcomers
            for row in newcomers:
                row.seated_at = time.monotonic()
        sampled = sample(
            torch.cat(logits),
            [row.temperature for row in seated],
            [row.generator for row in seated],
            top_p=top_p,
            forced=[row.next_forced() for row in seated],
        )
        for place, (row, token) in enumerate(zip(seated, sampled, strict=True)):
            _apply(row.take(token), row, place, cache)
        for place in reversed(range(len(seated))):
            if seated[place].finish is not None:
                results[seated[place].index] = seated[place].result()
                cache.leave(place)
                seated[place] = seated[-1]
                seated.pop()
    return results


def _apply(verdict: Verdict, row: _Row, place: int, cache: RaggedCache) -> None:
    """Bring the cache behind the verdict: it holds all of the row's tokens but the last, which runs next."""
    if isinstance(verdict, Erase):
        if verdict.head is not None:
            cache.forget_aside(place)
        aside = verdict.draw.attempt if row.healer.policy.keep == "best" else None
        cache.cut(place, row.checkpoint - 1, aside=aside)
    elif isinstance(verdict, Commit):
        if verdict.reinserted:
            cache.cut(place, row.checkpoint - len(verdict.draw.tokens) - 1)
            cache.bring_back(place, verdict.draw.attempt)
        cache.forget_aside(place)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Where responses and segments may end."""

    max_tokens: int
    eos_ids: frozenset[int]
    boundaries: bytes | None
    reasoning_end: int | None

    def boundary(self, token: int) -> int:
        return self.boundaries[token] if self.boundaries is not None and token < len(self.boundaries) else 0


@dataclass(slots=True)
class _Row:
    """One response in the making: prompt, committed tokens, open draw."""

    index: int
    tokens: list[int]
    prompt_length: int
    healer: Healer
    base_temperature: float
    generator: torch.Generator
    limits: _Limits
    forced: Iterator[int] | None
    left: int
    """Forced tokens not yet taken."""
    seated_at: float = 0.0
    """By the monotonic clock; seconds."""
    finish: Finish | None = None
    checkpoint: int = 0
    """Tokens, the prompt's included, that are final."""
    surprisals: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    draws: list[RolloutDraw] = field(default_factory=list)
    forward_tokens: int = 0

    def __post_init__(self) -> None:
        self.checkpoint = self.forward_tokens = self.prompt_length

    @property
    def temperature(self) -> float:
        if self.healer.attempt == 0:
            return self.base_temperature
        return self.healer.policy.retry.temperature_for(self.base_temperature)

    def next_forced(self) -> int | None:
        if self.forced is None:
            return None
        self.left -= 1
        return next(self.forced)

    def take(self, sampled: Sampled) -> Verdict:
        """Append a token, and follow the healer's verdict in the row's own lists."""
        temperature = self.temperature
        self.tokens.append(sampled.token)
        self.surprisals.append(sampled.surprisal)
        self.logprobs.append(sampled.logprob)
        finish = self._finish(sampled.token)
        if not self.healer.active:
            self.finish = finish
            self.checkpoint = len(self.tokens)
            return HOLD
        policy = self.healer.policy
        verdict = self.healer.feed(
            sampled.token,
            sampled.entropy if policy.uncertainty.signal == "entropy" else sampled.surprisal,
            boundary=self.limits.boundary(sampled.token),
            final=finish is not None,
            reasoning_over=sampled.token == self.limits.reasoning_end,
            late=self._late(),
        )
        if isinstance(verdict, Erase):
            if verdict.head is not None:
                self._record(verdict.head.draw, verdict.head, temperature, kept=True)
                self.checkpoint += len(verdict.head.draw.tokens)
            self._record(verdict.draw, verdict, temperature, kept=False)
            self._cut()
        elif isinstance(verdict, Commit):
            self._commit(verdict, temperature)
        if isinstance(verdict, Commit) and verdict.draw.final:
            self.finish = self._finish(self.tokens[-1])
        elif self.forced is not None and self.left == 0:
            self.finish = "forced"
        return verdict

    def _late(self) -> bool:
        deadline = self.healer.policy.budget.deadline_ms
        return deadline is not None and (time.monotonic() - self.seated_at) * 1000 > deadline

    def _finish(self, token: int) -> Finish | None:
        if token in self.limits.eos_ids:
            return "stop"
        if len(self.tokens) - self.prompt_length == self.limits.max_tokens:
            return "length"
        return "forced" if self.forced is not None and self.left == 0 else None

    def _commit(self, commit: Commit, temperature: float) -> None:
        if commit.discarded is None:
            self._record(commit.draw, commit, temperature, kept=True)
        else:
            self._record(commit.discarded, commit, temperature, kept=False)
            self._cut()
            place = next(
                place
                for place, draw in enumerate(self.draws)
                if (draw.segment, draw.attempt) == (commit.segment, commit.draw.attempt)
            )
            best = self.draws[place] = replace(self.draws[place], kept=True)
            self.tokens.extend(best.tokens)
            self.surprisals.extend(best.surprisals)
            self.logprobs.extend(best.logprobs)
        self.checkpoint = len(self.tokens)

    def _cut(self) -> None:
        kept = self.checkpoint - self.prompt_length
        del self.tokens[self.checkpoint :], self.surprisals[kept:], self.logprobs[kept:]

    def _record(self, draw: Draw, verdict: Erase | Commit, temperature: float, *, kept: bool) -> None:
        start = self.checkpoint - self.prompt_length
        end = start + len(draw.tokens)
        record = RolloutDraw(
            segment=verdict.segment,
            attempt=draw.attempt,
            start=start,
            tokens=draw.tokens,
            surprisals=tuple(self.surprisals[start:end]),
            logprobs=tuple(self.logprobs[start:end]),
            temperature=temperature,
            uncertainty=draw.uncertainty,
            threshold=draw.threshold,
            kept=kept,
            reason=verdict.reason,
            limit=verdict.limit if isinstance(verdict, Commit) else None,
        )
        self.draws.append(record)

    def result(self) -> Rollout:
        kept = self.checkpoint - self.prompt_length
        assert self.finish is not None
        return Rollout(
            tokens=tuple(self.tokens[self.prompt_length : self.checkpoint]),
            surprisals=tuple(self.surprisals[:kept]),
            logprobs=tuple(self.logprobs[:kept]),
            draws=tuple(self.draws),
            finish=self.finish,
            totals=self.healer.totals,
            forward_tokens=self.forward_tokens,
        )
