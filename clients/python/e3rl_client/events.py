"""The wire events of protocol version 1 (docs/protocol.md). Uncertainties and thresholds are in nats.

They are named by their `type`. Fields and event types that are newer than this package are let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from e3rl_client.errors import EventError, ProtocolVersionError

PROTOCOL_VERSION = 1


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Uncertainty(_Model):
    """How surprised a model was at one draw; `u` is the score that is held against the threshold."""

    u: float
    mean: float
    max: float
    slope: float


class Retry(_Model):
    """The redraw that follows an erasure."""

    attempt: int
    temperature: float | None = None


class _Numbered(_Model):
    v: Literal[1] = 1
    seq: int


class _Placed(_Numbered):
    """`start_char` counts characters of the choice's raw text (before reasoning and tool parsers)."""

    choice: int
    channel: str
    segment: int
    attempt: int
    start_char: int


class SegmentStarted(_Placed):
    type: Literal["segment.started"] = "segment.started"


class SegmentDelta(_Placed):
    """Provisional text of the open draw: it may yet be erased."""

    type: Literal["segment.delta"] = "segment.delta"
    text: str


class SegmentErased(_Placed):
    """The open draw is void. `reason` is ``uncertainty`` or ``schedule``; there will be more."""

    type: Literal["segment.erased"] = "segment.erased"
    tokens: int
    uncertainty: Uncertainty
    threshold: float
    reason: str
    retry: Retry


class SegmentCommitted(_Placed):
    """The first `chars` characters of the draw are final.

    `text` is there when the kept draw is not the one last shown; `threshold`, where the server tells.
    """

    type: Literal["segment.committed"] = "segment.committed"
    chars: int
    text: str | None = None
    tokens: int
    uncertainty: Uncertainty
    threshold: float | None = None
    attempts: int


class BudgetExhausted(_Placed):
    """``erased_tokens``, ``erased_fraction`` or ``deadline_ms`` forbade its first erasure."""

    type: Literal["budget.exhausted"] = "budget.exhausted"
    budget: str


class ErasedRecord(_Model):
    """An erased draw in a summary's record."""

    attempt: int
    tokens: int
    uncertainty: Uncertainty
    threshold: float
    reason: str
    retry: Retry
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None


class SegmentRecord(_Model):
    """A kept segment in a summary. `reason` with `limit`: there was a reason to erase it, and what forbade it."""

    choice: int
    start_char: int
    chars: int
    segment: int
    attempt: int
    tokens: int
    uncertainty: Uncertainty
    threshold: float
    attempts: int
    first_u: float
    erased_tokens: int
    reason: str | None = None
    limit: str | None = None
    erased: list[ErasedRecord]
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None


class Summary(_Model):
    """What healing did to a response, over all its choices. `seq` is there in streams."""

    v: Literal[1] = 1
    type: Literal["summary"] = "summary"
    seq: int | None = None
    mode: str
    segments: int
    erasures: int
    would_erase: int | None = None
    """Shadow mode: the erasures there would have been."""
    erased_tokens: int
    committed_tokens: int
    mean_uncertainty: float | None
    """Over the kept segments; None if nothing was scored."""
    records: list[SegmentRecord] | None = None
    """Every kept segment: without streaming, or where `return_erased` asks for it."""


class UnknownEvent(_Numbered):
    """An event of a type that is newer than this package; it changes no text."""

    type: str


class TextDelta(_Model):
    """Final text, as it reaches `delta` for every client; `channel` is ``content`` or ``reasoning``.

    No wire event: `stream_events` makes it of the answer itself, after reasoning and tool parsers.
    """

    type: Literal["text.delta"] = "text.delta"
    choice: int
    channel: str
    text: str


KnownEvent = SegmentStarted | SegmentDelta | SegmentErased | SegmentCommitted | BudgetExhausted | Summary
WireEvent = KnownEvent | UnknownEvent
Event = WireEvent | TextDelta

_KNOWN: TypeAdapter[KnownEvent] = TypeAdapter(Annotated[KnownEvent, Field(discriminator="type")])
_TYPES = {model.model_fields["type"].default for model in get_args(KnownEvent)}


def parse_event(data: object) -> WireEvent:
    """A wire event from its JSON object.

    Raises:
        ProtocolVersionError: it is of another version.
        EventError: it is no object, or a field is missing or of the wrong type.

    >>> event = parse_event({"v": 1, "seq": 4, "type": "segment.delta", "choice": 0, "channel": "content",
    ...                      "segment": 1, "attempt": 0, "start_char": 34, "text": "It is "})
    >>> event.type, event.text
    ('segment.delta', 'It is ')
    >>> parse_event({"v": 1, "seq": 5, "type": "segment.praised"}).type
    'segment.praised'
    >>> parse_event({"v": 2, "seq": 0, "type": "segment.started"})
    Traceback (most recent call last):
    e3rl_client.errors.ProtocolVersionError: a healing event has protocol version 2, this client knows 1
    """
    if not isinstance(data, Mapping):
        raise EventError("a healing event is not an object")
    if data.get("v") != PROTOCOL_VERSION:
        found = data.get("v", "none")
        raise ProtocolVersionError(
            f"a healing event has protocol version {found}, this client knows {PROTOCOL_VERSION}"
        )
    kind = data.get("type")
    try:
        return _KNOWN.validate_python(dict(data)) if kind in _TYPES else UnknownEvent.model_validate(dict(data))
    except ValidationError as error:
        raise EventError(f"a healing event of type {kind!r} has a {_flaw(error)}") from None


def _flaw(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"] if part not in _TYPES]
    return f"{'missing' if first['type'] == 'missing' else 'wrong'} {'.'.join(place)!r}"
