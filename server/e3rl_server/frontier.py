"""One choice of a response: what its op log says, told in characters of its text.

The commit frontier of a choice is how much of its raw text (before reasoning and tool parsers) may be shown. vLLM
keeps the last characters back while they could still become a stop string, so a segment's text can carry over into
the next: the next segment then starts at the frontier, and its attempts begin with the carried text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from e3rl_core.events import (
    BudgetExhausted,
    BudgetOp,
    CommittedOp,
    DraftedOp,
    ErasedOp,
    Op,
    SegmentCommitted,
    SegmentDelta,
    SegmentErased,
    SegmentStarted,
)


class Choice(Protocol):
    """What is known of a choice in the API process; `vllm_compat.TappedRequest` is the real one."""

    finished: bool

    @property
    def text(self) -> str: ...
    @property
    def released_chars(self) -> int: ...
    @property
    def token_ids(self) -> Sequence[int]: ...
    def draft_decoder(self) -> Callable[[int], str]: ...


ReasoningOver = Callable[[Sequence[int]], bool]
EventType = (
    type[SegmentStarted] | type[SegmentDelta] | type[SegmentErased] | type[SegmentCommitted] | type[BudgetExhausted]
)


@dataclass(slots=True)
class PendingEvent:
    """An event without its `seq`, which it gets when it is sent."""

    type: EventType
    fields: dict[str, Any]
    due_at: int | None = None
    """Of a commit: the number of the choice's output that brings its text; None until that output is handed over."""
    alone: bool = False
    """Of a commit: no chunk carries its text, so it travels without one."""

    @property
    def is_commit(self) -> bool:
        return self.type is SegmentCommitted

    def numbered(self, seq: int) -> dict[str, Any]:
        """The event as its JSON object."""
        return self.type(seq=seq, **self.fields).model_dump(mode="json", exclude_none=True)


@dataclass(slots=True)
class Tally:
    """Sums over a choice's op log, in segments, tokens and nats."""

    segments: int = 0
    erasures: int = 0
    would_erase: int = 0
    uncertainty: float = 0.0
    _closed: int = 0
    _open: int = 0

    @property
    def erased_tokens(self) -> int:
        return self._closed + self._open

    def add(self, op: Op) -> None:
        if isinstance(op, ErasedOp):
            self.erasures += 1
            self._open += op.tokens
        elif isinstance(op, CommittedOp):
            self.segments += 1
            self.uncertainty += op.uncertainty.u
            self._closed += op.erased_tokens
            self._open = 0
            self.would_erase += op.reason is not None and op.limit is None


class Records:
    """Every segment's record, for answers that show them: the committed op with its erased draws."""

    def __init__(self) -> None:
        self.segments: list[dict[str, Any]] = []
        self._erased: list[dict[str, Any]] = []

    def add(self, op: Op, choice: int, start_char: int, chars: int) -> None:
        if isinstance(op, ErasedOp):
            self._erased.append(op.model_dump(mode="json", exclude_none=True, exclude={"op", "segment"}))
        elif isinstance(op, CommittedOp):
            kept = op.model_dump(mode="json", exclude_none=True, exclude={"op"})
            where = {"choice": choice, "start_char": start_char, "chars": chars}
            self.segments.append({**where, **kept, "erased": self._erased})
            self._erased = []


@dataclass(slots=True)
class ChoiceTrack:
    """Follows one choice: sums always, records and wire events where somebody wants them.

    Args:
        choice: index of the choice in the response.
        live: whether wire events are made.
        withholds: whether open tokens are kept back (mode ``on``), or released as they come (``shadow``).
        records: where to keep every segment's record; None: nowhere.
        reasoning_over: whether these committed tokens end the reasoning; None: the choice has no reasoning.
    """

    choice: int
    live: bool
    withholds: bool
    records: Records | None = None
    reasoning_over: ReasoningOver | None = None
    tally: Tally = field(default_factory=Tally)
    frontier: int = 0
    committed_tokens: int = 0
    outputs: int = 0
    """Outputs handed to vLLM's serving layer that make it send a chunk."""
    chunks: int = 0
    """Chunks of this choice that the serving layer has sent."""
    _events: deque[PendingEvent] = field(default_factory=deque)
    _segment: int = 0
    _attempt: int = 0
    _started: bool = False
    _shown: str = ""
    _carried: str = ""
    _decode: Callable[[int], str] | None = None

    @property
    def channel(self) -> str:
        return "content" if self.reasoning_over is None else "reasoning"

    def feed(self, source: Choice, ops: Sequence[Op]) -> None:
        """Take the ops of one engine output, after vLLM has taken in that output's tokens."""
        last_commit = max((i for i, op in enumerate(ops) if isinstance(op, CommittedOp)), default=-1)
        for i, op in enumerate(ops):
            self.tally.add(op)
            start = self.frontier
            if self.live:
                self._announce(source, op)
            if isinstance(op, CommittedOp):
                # Where several segments come with one output only the last one's end is known: it gets the text.
                self._commit(source, op, source.released_chars if i == last_commit else start)
            if self.records is not None:
                self.records.add(op, self.choice, start, self.frontier - start)

    # --- provisional text -------------------------------------------------------------------------------------------

    def _announce(self, source: Choice, op: Op) -> None:
        if isinstance(op, BudgetOp):
            self._push(BudgetExhausted, budget=op.budget)
            return
        self._segment, self._attempt = op.segment, op.attempt
        if not self._started:
            self._started = True
            self._push(SegmentStarted)
        if isinstance(op, DraftedOp):
            self._show(self._drafted_text(source, op.token_ids))
        elif isinstance(op, ErasedOp):
            scored = {"tokens": op.tokens, "uncertainty": op.uncertainty, "threshold": op.threshold}
            self._push(SegmentErased, **scored, reason=op.reason, retry=op.retry)
            self._restart(source)

    def _drafted_text(self, source: Choice, token_ids: Sequence[int]) -> str:
        if not self.withholds:  # what was drafted is final already
            return source.text[self.frontier + len(self._shown) : source.released_chars]
        if self._decode is None:
            self._decode = source.draft_decoder()
        text = "".join(map(self._decode, token_ids))
        return text if self._shown else self._carried + text

    def _show(self, text: str) -> None:
        if not text:
            return
        self._shown += text
        last = self._events[-1] if self._events else None
        if last is not None and last.type is SegmentDelta and last.fields["attempt"] == self._attempt:
            last.fields["text"] += text  # the client lags: one event says it all
        else:
            self._push(SegmentDelta, text=text)

    def _restart(self, source: Choice) -> None:
        """Back to the frontier: the next attempt's text starts there."""
        self._shown = ""
        self._decode = source.draft_decoder() if self.withholds and not source.finished else None

    # --- final text -------------------------------------------------------------------------------------------------

    def _commit(self, source: Choice, op: CommittedOp, frontier: int) -> None:
        frontier = max(frontier, self.frontier)
        if self.live:
            released = source.text[self.frontier : frontier]
            self._push(
                SegmentCommitted,
                chars=len(released),
                text=None if self._shown.startswith(released) else released,
                tokens=op.tokens,
                uncertainty=op.uncertainty,
                threshold=op.threshold,
                attempts=op.attempts,
            )
            self._carried = source.text[frontier:]
            self._started = False
            self._restart(source)
            if self.reasoning_over is not None and self.reasoning_over(source.token_ids):
                self.reasoning_over = None
        self.frontier = frontier

    def _push(self, kind: EventType, **fields: Any) -> None:
        where = {"choice": self.choice, "channel": self.channel, "segment": self._segment, "attempt": self._attempt}
        self._events.append(PendingEvent(kind, {**where, "start_char": self.frontier, **fields}))

    # --- the way out ------------------------------------------------------------------------------------------------

    def handed_over(self, tokens: int, *, visible: bool, in_order: bool) -> None:
        """The serving layer gets an output of this choice: it brings the text of all commits so far.

        Args:
            tokens: how many tokens it brings.
            visible: whether a chunk comes of it for sure.
            in_order: the serving layer asks for its next output only when it is done with this one.
        """
        self.committed_tokens += tokens
        self.outputs += visible
        for event in self._events:
            if event.is_commit and event.due_at is None:
                event.due_at = 0 if in_order else self.outputs

    def release_due(self) -> None:
        """Let commits go alone whose text was handed over: no chunk has come of it."""
        for event in self._events:
            event.alone = event.alone or event.due_at is not None

    def take_loose(self) -> Iterator[PendingEvent]:
        """Events that need no chunk of the choice to travel with."""
        while self._events and (self._events[0].alone or not self._events[0].is_commit):
            yield self._events.popleft()

    def take_due(self, *, forced: bool = False) -> list[PendingEvent]:
        """Events up to the last commit whose text the choice's present chunk brings; all of them if `forced`."""
        count = len(self._events) if forced else 0
        for i, event in enumerate(self._events):
            if event.due_at is not None and event.due_at <= self.chunks:
                count = max(count, i + 1)
        return [self._events.popleft() for _ in range(count)]
