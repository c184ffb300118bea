"""The state machine of healing: tokens and surprisals in, Hold | Commit | Erase out (F6-F7).

Pure and engine-free: no clock, no I/O, no randomness. Engines feed it one token at a time and do what it says.
Memory is O(open segment), plus one draw under `keep: best`.

The order of checks at the end of a segment:
  1. score the draw (F1-F3), and remember the first draw's U for the siblings
  2. ask the reasons to erase, in their order: schedule, else uncertainty (F4-F5)
  3. no reason            -> commit
  4. mode shadow          -> commit, noting the reason that would have erased
  5. cap or budget spent  -> commit by force, keeping the last or the best draw (F7)
  6. otherwise            -> erase; the engine truncates to the checkpoint and samples again. Under `erase_from: onset`
                             what stands before the spike is committed first, as a segment of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import DEFAULT_PRIOR, Profile
from e3rl_core.segmentation import Segmenter
from e3rl_core.threshold import GroupHistory, Moments, OwnHistory, baseline, threshold
from e3rl_core.uncertainty import SurprisalMeter, Uncertainty


class Reason(StrEnum):
    """Why a draw is erased. Loops, banned patterns and validators will stand beside these."""

    SCHEDULE = "schedule"
    UNCERTAINTY = "uncertainty"


class Limit(StrEnum):
    """What kept a draw with a reason to erase from being erased (F6)."""

    MAX_ERASURES = "max_erasures"
    ERASED_TOKENS = "erased_tokens"
    ERASED_FRACTION = "erased_fraction"
    DEADLINE = "deadline_ms"


@dataclass(frozen=True, slots=True)
class Draw:
    """One scored draw of a segment."""

    attempt: int
    tokens: tuple[int, ...]
    surprisals: tuple[float, ...]
    """Nats, one per token."""
    uncertainty: Uncertainty
    threshold: float
    """Theta_n(e) this draw was held against, nats."""
    final: bool
    """Whether the response ends with this draw."""
    ends_reasoning: bool = False
    """Whether the reasoning ends with this draw."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The segment is final: release `draw.tokens`."""

    segment: int
    draw: Draw
    attempts: int
    """How many draws were made here, the kept one included."""
    first_u: float
    """U of the first draw, nats: with the kept draw's U it tells what erasing bought."""
    erased_tokens: int
    """Tokens of this segment's draws that were not kept."""
    reason: Reason | None = None
    """The reason there still was to erase this draw: shadow mode, or a limit."""
    limit: Limit | None = None
    """What forced the commit, if anything did."""
    discarded: Draw | None = None
    """The last draw, where an earlier one is kept in its place (F7, keep best)."""

    @property
    def reinserted(self) -> bool:
        """The kept draw is not the one in the engine: truncate to the checkpoint and put `draw.tokens` there."""
        return self.discarded is not None


@dataclass(frozen=True, slots=True)
class Erase:
    """Truncate to the checkpoint, forget these tokens, sample again."""

    segment: int
    draw: Draw
    reason: Reason
    head: Commit | None = None
    """Of a draw erased from its onset: the segment before, made of the tokens that stay. The checkpoint is its end."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The segment is open: keep the token from everyone."""


HOLD: Final = Hold()
Verdict = Hold | Commit | Erase


@dataclass(slots=True)
class Totals:
    """What one response has committed and erased so far, in tokens and segments."""

    committed_tokens: int = 0
    erased_tokens: int = 0
    segments: int = 0
    erasures: int = 0
    exhausted: set[Limit] = field(default_factory=set)
    """Response-wide budgets that have denied an erasure."""


class Healer:
    """Heals one response.

    Feed every sampled token to `feed`. In mode ``on`` act on the verdict; in ``shadow`` release tokens as they come
    and only record verdicts. When `active` turns false the rest of the response passes unscored.
    """

    __slots__ = (
        "_best", "_first_u", "_group", "_member", "_meter", "_own", "_previous_mean", "_profile", "_rule",
        "_segment_drawn", "_streak", "_surprisals", "_tokens", "active", "attempt", "policy", "totals",
    )  # fmt: skip

    def __init__(
        self,
        policy: HealingPolicy,
        profile: Profile | None = None,
        group: GroupHistory | None = None,
        member: int = 0,
    ) -> None:
        self.policy = policy
        self.totals = Totals()
        self.attempt = 0
        self.active = policy.mode != "off"
        self._profile = profile
        self._group = group
        self._member = member
        self._rule = Segmenter(policy.segment)
        self._meter = SurprisalMeter(policy.uncertainty)
        self._own = OwnHistory(policy.threshold.decay)
        self._previous_mean: float | None = None
        self._tokens: list[int] = []
        self._surprisals: list[float] = []
        self._first_u: float | None = None
        self._best: Draw | None = None
        self._segment_drawn = 0
        #: Erasures since a whole draw was last kept: more than `attempt` where heads were kept in between.
        self._streak = 0

    @property
    def holds(self) -> bool:
        """Whether open tokens are to be withheld (mode ``on``), or released as they come (``shadow``)."""
        return self.policy.mode == "on"

    @property
    def segment(self) -> int:
        """Index of the open segment."""
        return self.totals.segments

    @property
    def open_tokens(self) -> Sequence[int]:
        """The open draw's tokens; read-only by convention, valid until the next `feed`."""
        return self._tokens

    @property
    def tokens_left(self) -> int:
        """Tokens until the open segment ends by its length, unless its text or the response ends it before."""
        return self._rule.longest - len(self._tokens)

    def feed(
        self,
        token: int,
        surprisal: float,
        *,
        boundary: int = 0,
        final: bool = False,
        closes: bool = False,
        reasoning_over: bool = False,
        late: bool = False,
    ) -> Verdict:
        """Take one sampled token.

        Args:
            token: its id.
            surprisal: its cross-entropy -log p under the model's raw logits (or the policy's other signal), nats.
            boundary: the `Boundary` its text ends.
            final: the response ends with it (end of sequence, stop token, length).
            closes: the segment ends with it whatever its length (a stop string was completed).
            reasoning_over: the reasoning ends with it; closes the segment, and under `scope: reasoning` healing too.
            late: the engine's clock is past the policy's deadline.
        """
        self._tokens.append(token)
        self._surprisals.append(surprisal)
        self._meter.feed(surprisal)
        self._segment_drawn += 1
        if not (final or closes or reasoning_over or self._rule.ends(len(self._tokens), boundary)):
            return HOLD
        return self._judge(final=final, ends_reasoning=reasoning_over, late=late)

    def _judge(self, *, final: bool, ends_reasoning: bool, late: bool) -> Commit | Erase:
        draw = self._score(final, ends_reasoning)
        reason = self._reason(draw)
        limit = None
        if reason is not None and self.holds:
            head, tail = self._split(draw) if reason is Reason.UNCERTAINTY else (None, draw)
            limit = self._limit(len(tail.tokens), len(draw.tokens), late)
            if limit is None:
                return self._erase(head, tail, reason)
        commit = self._commit(draw, reason, limit)
        self._own.add(commit.draw.uncertainty.u)  # not of a head: it is calm by choice, and would lower what is normal
        if commit.draw.ends_reasoning and self.policy.scope == "reasoning":
            self.active = False
        return commit

    def _score(self, final: bool, ends_reasoning: bool) -> Draw:
        uncertainty = self._meter.read(self._previous_mean)
        self._note_first(uncertainty.u)
        return Draw(
            attempt=self.attempt,
            tokens=tuple(self._tokens),
            surprisals=tuple(self._surprisals),
            uncertainty=uncertainty,
            threshold=self._threshold(),
            final=final,
            ends_reasoning=ends_reasoning,
        )

    def _note_first(self, u: float) -> None:
        """The siblings compare with a segment's first draw."""
        if self._first_u is None:
            self._first_u = u
            if self._group is not None:
                self._group.add(self.segment, self._member, u)

    def _split(self, draw: Draw) -> tuple[Draw | None, Draw]:
        """What stays of a draw to be erased, and what goes [ours].

        It goes from the first token whose smoothed surprisal (F2) is above the threshold. Where there is none, where it
        is the first, or where the rest alone is not above the threshold (F3), all of it goes.
        """
        if self.policy.erase_from == "segment" or (at := self._onset(draw)) == 0:
            return None, draw
        kept = self._scored(draw.surprisals[:at], self._previous_mean)
        rest = self._scored(draw.surprisals[at:], kept.mean)
        if rest.u <= draw.threshold:
            return None, draw
        head = replace(
            draw,
            tokens=draw.tokens[:at],
            surprisals=draw.surprisals[:at],
            uncertainty=kept,
            final=False,
            ends_reasoning=False,
        )
        tail = replace(draw, attempt=0, tokens=draw.tokens[at:], surprisals=draw.surprisals[at:], uncertainty=rest)
        return head, tail

    def _onset(self, draw: Draw) -> int:
        meter = SurprisalMeter(self.policy.uncertainty)
        for place, surprisal in enumerate(draw.surprisals):
            meter.feed(surprisal)
            if meter.read(None).max > draw.threshold:
                return place
        return 0

    def _scored(self, surprisals: Sequence[float], previous_mean: float | None) -> Uncertainty:
        meter = SurprisalMeter(self.policy.uncertainty)
        for surprisal in surprisals:
            meter.feed(surprisal)
        return meter.read(previous_mean)

    def _threshold(self) -> float:
        rule = self.policy.threshold
        prior = self._prior()
        own = self._own.shrunk(prior, rule.prior_segments)
        group = self._group.without(self.segment, self._member, own.std) if self._group is not None else None
        beta = baseline(own, group, rule)
        return threshold(beta, self._own.mean, prior, self._streak, rule)

    def _prior(self) -> Moments:
        return self._profile.prior(self.segment) if self._profile is not None else DEFAULT_PRIOR

    def _reason(self, draw: Draw) -> Reason | None:
        schedule = self.policy.schedule
        if schedule is not None:
            return Reason.SCHEDULE if self.attempt < schedule[self.segment % len(schedule)] else None
        return Reason.UNCERTAINTY if draw.uncertainty.u > draw.threshold else None

    def _limit(self, erased: int, drawn: int, late: bool) -> Limit | None:
        """F6: the first limit that forbids erasing `erased` of `drawn` tokens. A budget's first denial is remembered.

        The fraction counts the redraw to come, taken to be as long: else a first segment could never be erased.
        """
        if self._streak >= self.policy.max_erasures:
            return Limit.MAX_ERASURES
        limit = self._overdrawn(self.totals.erased_tokens + erased, self.totals.committed_tokens + drawn)
        if limit is None and late:
            limit = Limit.DEADLINE
        if limit is not None:
            self.totals.exhausted.add(limit)
        return limit

    def _overdrawn(self, erased: int, committed: int) -> Limit | None:
        """F6: the budget that these totals, in tokens, would exceed."""
        budget = self.policy.budget
        if budget.erased_tokens is not None and erased > budget.erased_tokens:
            return Limit.ERASED_TOKENS
        if budget.erased_fraction is None or self.policy.schedule is not None:
            return None
        return Limit.ERASED_FRACTION if erased > budget.erased_fraction * (committed + erased) else None

    def _erase(self, head: Draw | None, draw: Draw, reason: Reason) -> Erase:
        streak, kept = self._streak + 1, None
        if head is not None:
            if self.attempt == 0:  # nothing was bought there: the next segment tells what was
                self._first_u = head.uncertainty.u
            self._segment_drawn -= len(draw.tokens)
            kept = self._commit(head, None, None)
            self._segment_drawn = len(draw.tokens)
            self._note_first(draw.uncertainty.u)
        erase = Erase(self.segment, draw, reason, kept)
        if self.policy.keep == "best" and (self._best is None or draw.uncertainty.u < self._best.uncertainty.u):
            self._best = draw
        self.totals.erased_tokens += len(draw.tokens)
        self.totals.erasures += 1
        self.attempt += 1
        self._streak = streak
        self._clear_draw()
        return erase

    def _commit(self, draw: Draw, reason: Reason | None, limit: Limit | None) -> Commit:
        kept = draw if limit is None else self._affordable_best(draw)
        totals = self.totals
        assert self._first_u is not None
        commit = Commit(
            segment=self.segment,
            draw=kept,
            attempts=self.attempt + 1,
            first_u=self._first_u,
            erased_tokens=self._segment_drawn - len(kept.tokens),
            reason=reason,
            limit=limit,
            discarded=None if kept is draw else draw,
        )
        if commit.reinserted:  # the draw in the engine is thrown away for one that was counted as erased
            totals.erased_tokens += len(draw.tokens) - len(kept.tokens)
        totals.committed_tokens += len(kept.tokens)
        totals.segments += 1
        self._previous_mean = kept.uncertainty.mean
        self.attempt = self._streak = 0
        self._first_u = None
        self._best = None
        self._segment_drawn = 0
        self._clear_draw()
        return commit

    def _affordable_best(self, last: Draw) -> Draw:
        """F7, keep best: the draw with the lowest U, unless throwing `last` away for it would break a budget."""
        best, totals = self._best, self.totals
        if best is None or best.uncertainty.u >= last.uncertainty.u:
            return last
        erased = totals.erased_tokens + len(last.tokens) - len(best.tokens)
        return last if self._overdrawn(erased, totals.committed_tokens + len(best.tokens)) else best

    def _clear_draw(self) -> None:
        self._tokens = []
        self._surprisals = []
        self._meter.reset()
