"""What can go wrong between a client and a healing server.

openai.OpenAIError
└── E3RLError                 root of what this package raises
    ├── NoHealingError        the server answers without healing
    ├── ProtocolVersionError  its events have a version that this package does not know
    ├── SequenceError         an event is missing, or came twice
    ├── EventError            an event is malformed, or does not continue the text it claims to
    ├── StreamDroppedError    the stream ended before the answer did
    └── LogError              an op log cannot be read, is damaged, or holds no text

What a server refuses, and what never reaches one, stays an error of the `openai` package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai import OpenAIError

if TYPE_CHECKING:
    from e3rl_client.transcript import Transcript


class E3RLError(OpenAIError):
    """Root of what this package raises; the message is one sentence.

    `transcript` has what was known of the response when it happened; None where no response was followed.
    """

    def __init__(self, message: str, transcript: Transcript | None = None) -> None:
        super().__init__(message)
        self.transcript = transcript

    @property
    def committed(self) -> str:
        """Choice 0's text that was final when it happened; nothing that was erased, or could still be."""
        return "" if self.transcript is None else self.transcript.choice(0).final


class NoHealingError(E3RLError):
    """The server answers without healing; `committed` is its answer, if it gave one."""


class ProtocolVersionError(E3RLError):
    """The events have another protocol version than this package knows."""


class SequenceError(E3RLError):
    """`seq` has a gap or a repeat."""


class EventError(E3RLError):
    """An event lacks a field, has one of the wrong type, or contradicts the events before it."""


class StreamDroppedError(E3RLError):
    """The connection broke, or the server reported an error in mid-answer: ``__cause__`` tells, where it is known."""


class LogError(E3RLError):
    """An op log cannot be read, has a damaged line, or was written without text."""
