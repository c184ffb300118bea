"""What a response's events add up to: what is final, what is open, and what was erased on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from e3rl_client import oplog
from e3rl_client.errors import E3RLError, EventError, SequenceError
from e3rl_client.events import (
    BudgetExhausted,
    Event,
    SegmentCommitted,
    SegmentDelta,
    SegmentErased,
    SegmentStarted,
    Summary,
    TextDelta,
    Uncertainty,
    UnknownEvent,
    WireEvent,
    parse_event,
)


@dataclass(frozen=True)
class ErasedDraw:
    """A draw that was erased; uncertainty and threshold in nats."""

    attempt: int
    text: str
    """Empty where an op log does not have it."""
    tokens: int
    uncertainty: Uncertainty
    threshold: float
    reason: str


@dataclass(frozen=True)
class Segment:
    """A segment that is final; uncertainty and threshold in nats."""

    segment: int
    channel: str
    attempt: int
    """Which draw was kept, from 0."""
    text: str
    tokens: int
    uncertainty: Uncertainty
    threshold: float | None
    """What the kept draw was held against; None where the server does not tell."""
    erased: tuple[ErasedDraw, ...]
    """The draws that were erased before it was kept, in order."""


@dataclass
class Choice:
    """One choice of a response, as far as it is known."""

    committed: str = ""
    """Final text by the events: raw, before reasoning and tool parsers."""
    live: str = ""
    """The open draw's text: provisional."""
    segments: list[Segment] = field(default_factory=list)
    erased: tuple[ErasedDraw, ...] = ()
    """Erased draws of the open segment."""
    content: str = ""
    """The answer's text so far, as any OpenAI client gets it in `delta`. Empty in a replay: events do not tell."""
    reasoning: str = ""
    """Likewise, what a reasoning parser took out of it."""

    @property
    def final(self) -> str:
        """All that is known to be final: in shadow mode text is, before its segment is scored."""
        return max(self.committed, self.content, key=len)

    def erase(self, event: SegmentErased) -> None:
        draw = ErasedDraw(event.attempt, self.live, event.tokens, event.uncertainty, event.threshold, event.reason)
        self.erased, self.live = (*self.erased, draw), ""

    def commit(self, event: SegmentCommitted, text: str) -> None:
        """What is left of the draw comes again with the next segment."""
        self.segments.append(
            Segment(
                event.segment,
                event.channel,
                event.attempt,
                text,
                event.tokens,
                event.uncertainty,
                event.threshold,
                self.erased,
            )
        )
        self.committed, self.live, self.erased = self.committed + text, "", ()


class Transcript:
    """Rebuilds a response from its events.

    >>> place = {"v": 1, "choice": 0, "channel": "content", "segment": 0, "start_char": 0}
    >>> score = {"tokens": 3, "uncertainty": {"u": 3.0, "mean": 2.0, "max": 4.0, "slope": 0.0}, "threshold": 2.3}
    >>> transcript = Transcript.replay([
    ...     {**place, "seq": 0, "type": "segment.delta", "attempt": 0, "text": "2 + 2 is 5."},
    ...     {**place, "seq": 1, "type": "segment.erased", "attempt": 0, **score, "reason": "uncertainty",
    ...      "retry": {"attempt": 1}},
    ...     {**place, "seq": 2, "type": "segment.delta", "attempt": 1, "text": "2 + 2 is 4."},
    ...     {**place, "seq": 3, "type": "segment.committed", "attempt": 1, **score, "chars": 11, "attempts": 2},
    ... ])
    >>> transcript.committed, transcript.live
    ('2 + 2 is 4.', '')
    >>> transcript.segments[0].erased[0].text
    '2 + 2 is 5.'
    """

    def __init__(self) -> None:
        self.choices: dict[int, Choice] = {}
        self.summary: Summary | None = None
        self._next = 0

    @classmethod
    def replay(cls, log: str | os.PathLike[str] | Iterable[Event | Mapping[str, Any]]) -> Transcript:
        """The transcript of recorded events, or of the op log that `e3rl serve --healing-log-text` wrote to this path.

        Raises:
            LogError: the op log cannot be read, is damaged, or holds no text.
            ProtocolVersionError, SequenceError, EventError: as `feed`; with the transcript up to there.
        """
        transcript = cls()
        for event in oplog.events(log) if isinstance(log, str | os.PathLike) else log:
            transcript.feed(event)
        return transcript

    def choice(self, index: int) -> Choice:
        """A choice, which is empty before its first event."""
        return self.choices.setdefault(index, Choice())

    @property
    def committed(self) -> str:
        """Choice 0's final text, raw."""
        return self.choice(0).committed

    @property
    def live(self) -> str:
        """Choice 0's open draw."""
        return self.choice(0).live

    @property
    def segments(self) -> list[Segment]:
        """Choice 0's final segments."""
        return self.choice(0).segments

    def feed(self, event: Event | Mapping[str, Any]) -> Event:
        """Take the next event, or a `healing` object as it came; returns the event.

        Raises:
            ProtocolVersionError: the event has another version.
            SequenceError: it is not the next one.
            EventError: it is malformed, or does not continue the text it claims to.
            After each of them the transcript is as it was before.
        """
        try:
            known = event if isinstance(event, BaseModel) else parse_event(event)
            if isinstance(known, TextDelta):
                self._answer(known)
            else:
                self._tell(known)
        except E3RLError as error:
            error.transcript = self
            raise
        return known

    def _answer(self, delta: TextDelta) -> None:
        choice = self.choice(delta.choice)
        if delta.channel == "content":
            choice.content += delta.text
        else:
            choice.reasoning += delta.text

    def _tell(self, event: WireEvent) -> None:
        if event.seq != self._next:
            raise SequenceError(
                f"a healing event has seq {event.seq}, expected {self._next}: events were lost or repeated"
            )
        if isinstance(event, Summary):
            self.summary = event
        elif not isinstance(event, BudgetExhausted | UnknownEvent):
            self._draw(event)
        self._next += 1

    def _draw(self, event: SegmentStarted | SegmentDelta | SegmentErased | SegmentCommitted) -> None:
        choice = self.choice(event.choice)
        if event.start_char != len(choice.committed):
            raise EventError(
                f"a healing event starts at character {event.start_char}, {len(choice.committed)} are committed"
            )
        match event:
            case SegmentStarted():
                choice.live = ""
            case SegmentDelta():
                choice.live += event.text
            case SegmentErased():
                choice.erase(event)
            case SegmentCommitted():
                text = choice.live if event.text is None else event.text
                if not 0 <= event.chars <= len(text):
                    raise EventError(f"a healing event commits {event.chars} characters of a draw of {len(text)}")
                choice.commit(event, text[: event.chars])
