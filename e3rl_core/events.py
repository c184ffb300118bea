"""What happened to a response, in two vocabularies: the engine's op log and the wire events of protocol v1.

The op log (`ErasedOp`, `CommittedOp`, `DraftedOp`, `BudgetOp`) leaves the engine with the outputs, as plain dicts.
Wire events are made from it where text is known: in the API process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from e3rl_core.errors import EventError, first_complaint
from e3rl_core.healer import Commit, Draw, Erase, Limit, Reason
from e3rl_core.uncertainty import Uncertainty

PROTOCOL_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Record):
    """Uncertainty of one draw; nats."""

    u: float
    mean: float
    max: float
    slope: float

    @classmethod
    def of(cls, uncertainty: Uncertainty) -> Score:
        return cls(u=uncertainty.u, mean=uncertainty.mean, max=uncertainty.max, slope=uncertainty.slope)


class RetrySpec(_Record):
    """The redraw that follows an erasure."""

    attempt: int
    temperature: float | None = None


# --- the op log -----------------------------------------------------------------------------------------------------


class _DrawOp(_Record):
    segment: int
    attempt: int
    tokens: int
    uncertainty: Score
    threshold: float
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None


class ErasedOp(_DrawOp):
    """A draw was erased. `recomputed`: tokens scheduled again or in vain because of it, beyond the draw's own."""

    op: Literal["erased"] = "erased"
    reason: Reason
    retry: RetrySpec
    recomputed: int = 0


class CommittedOp(_DrawOp):
    """A segment became final. `attempt` tells which draw was kept."""

    op: Literal["committed"] = "committed"
    attempts: int
    first_u: float
    erased_tokens: int
    reason: Reason | None = None
    limit: Limit | None = None
    recomputed: int = 0


class DraftedOp(_Record):
    """Tokens of the open draw, shipped only to requests that stream live."""

    op: Literal["drafted"] = "drafted"
    segment: int
    attempt: int
    token_ids: list[int]


class BudgetOp(_Record):
    """A response-wide budget denied its first erasure."""

    op: Literal["budget"] = "budget"
    budget: Limit


Op = Annotated[ErasedOp | CommittedOp | DraftedOp | BudgetOp, Field(discriminator="op")]
_OPS: TypeAdapter[list[Op]] = TypeAdapter(list[Op])


def dump_ops(ops: Iterable[_Record]) -> list[dict[str, Any]]:
    """Ops as plain dicts, for a process boundary."""
    return [op.model_dump(mode="json", exclude_none=True) for op in ops]


def load_ops(ops: object) -> list[Op]:
    """The inverse of `dump_ops`.

    Raises:
        EventError: not a list of known ops.
    """
    try:
        return _OPS.validate_python(ops)
    except ValidationError as error:
        raise EventError(f"op log: {error.errors(include_url=False)[0]['msg']}") from None


def _drawn(draw: Draw, segment: int, with_tokens: bool) -> dict[str, Any]:
    return {
        "segment": segment,
        "attempt": draw.attempt,
        "tokens": len(draw.tokens),
        "uncertainty": Score.of(draw.uncertainty),
        "threshold": draw.threshold,
        "token_ids": list(draw.tokens) if with_tokens else None,
        "logprobs": [-c for c in draw.surprisals] if with_tokens else None,
    }


def erased_op(erase: Erase, *, temperature: float, recomputed: int, with_tokens: bool) -> ErasedOp:
    """The op of one erasure; `temperature` is the one its redraw samples at."""
    retry = RetrySpec(attempt=erase.draw.attempt + 1, temperature=temperature)
    drawn = _drawn(erase.draw, erase.segment, with_tokens)
    return ErasedOp(**drawn, reason=erase.reason, retry=retry, recomputed=recomputed)


def committed_op(commit: Commit, *, recomputed: int, with_tokens: bool) -> CommittedOp:
    """The op of one commit."""
    drawn = _drawn(commit.draw, commit.segment, with_tokens)
    return CommittedOp(
        **drawn,
        attempts=commit.attempts,
        first_u=commit.first_u,
        erased_tokens=commit.erased_tokens,
        reason=commit.reason,
        limit=commit.limit,
        recomputed=recomputed,
    )


# --- wire events, protocol v1 ---------------------------------------------------------------------------------------


class _Event(_Record):
    """`start_char` counts in the choice's raw text (before reasoning and tool parsers), from the segment's start."""

    v: Literal[1] = 1
    seq: int
    choice: int = 0
    channel: str = "content"
    segment: int
    attempt: int
    start_char: int


class SegmentStarted(_Event):
    type: Literal["segment.started"] = "segment.started"


class SegmentDelta(_Event):
    """Provisional text of the open attempt; it may yet be erased."""

    type: Literal["segment.delta"] = "segment.delta"
    text: str


class SegmentErased(_Event):
    type: Literal["segment.erased"] = "segment.erased"
    tokens: int
    uncertainty: Score
    threshold: float
    reason: Reason
    retry: RetrySpec


class SegmentCommitted(_Event):
    """The first `chars` characters of the attempt's text are final; the rest carries over into the next segment.

    `text` is there when the kept draw is not the one last shown (`keep: best`).
    """

    type: Literal["segment.committed"] = "segment.committed"
    chars: int
    text: str | None = None
    tokens: int
    uncertainty: Score
    threshold: float | None = None
    """What the kept draw was held against, nats; None in records of older servers."""
    attempts: int


class BudgetExhausted(_Event):
    type: Literal["budget.exhausted"] = "budget.exhausted"
    budget: Limit


class Summary(_Record):
    """What healing did to one response, over all its choices."""

    v: Literal[1] = 1
    type: Literal["summary"] = "summary"
    mode: str
    segments: int
    erasures: int
    would_erase: int | None = None
    """Shadow mode: erasures there would have been."""
    erased_tokens: int
    committed_tokens: int
    mean_uncertainty: float | None
    """Mean U of the kept segments, nats; null if nothing was scored."""
    seq: int | None = None
    records: list[dict[str, Any]] | None = None
    """Every segment's record: its choice, where it stands in the text, its `CommittedOp`, its erased draws."""


Event = Annotated[
    SegmentStarted | SegmentDelta | SegmentErased | SegmentCommitted | BudgetExhausted | Summary,
    Field(discriminator="type"),
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(data: Mapping[str, Any]) -> Event:
    """A wire event from its JSON object.

    Raises:
        EventError: unknown protocol version, unknown type or a malformed field.
    """
    if data.get("v") != PROTOCOL_VERSION:
        raise EventError(f"healing event has protocol version {data.get('v')!r}, this code knows {PROTOCOL_VERSION}")
    try:
        return _EVENT.validate_python(dict(data))
    except ValidationError as error:
        raise EventError(f"healing event: {first_complaint(error)}") from None


class Replay:
    """Rebuilds texts from events: `committed` exactly, and the `open` attempt's text, per choice.

    Raises EventError from `feed` when `seq` has a gap or an event does not continue the text it claims to.
    """

    def __init__(self) -> None:
        self.committed: dict[int, str] = {}
        self.open: dict[int, str] = {}
        self._next_seq = 0

    def feed(self, event: Event) -> None:
        if event.seq != self._next_seq:
            raise EventError(f"healing event has seq {event.seq}, expected {self._next_seq}")
        self._next_seq += 1
        if isinstance(event, Summary | BudgetExhausted):
            return
        committed = self.committed.setdefault(event.choice, "")
        if event.start_char != len(committed):
            raise EventError(f"healing event starts at char {event.start_char}, committed are {len(committed)}")
        if isinstance(event, SegmentStarted | SegmentErased):
            self.open[event.choice] = ""
        elif isinstance(event, SegmentDelta):
            self.open[event.choice] = self.open.get(event.choice, "") + event.text
        else:
            text = self.open.get(event.choice, "") if event.text is None else event.text
            if event.chars > len(text):
                raise EventError(f"healing event commits {event.chars} chars of an attempt of {len(text)}")
            self.committed[event.choice] = committed + text[: event.chars]
            self.open[event.choice] = ""
