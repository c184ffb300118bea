"""A client for servers that heal, on top of the `openai` SDK.

client       `E3RL`, `AsyncE3RL`: the SDK's clients with `healing=` and `stream_events()`
streams      `EventStream`: typed events, and what they add up to; `healing_of`: the summary of an answer
transcript   `Transcript`: final and provisional text, segments; replays recorded events and op logs
events       the wire events; `settings`, the request field; `errors`, the exception tree
chat         `e3rl chat`
"""

from e3rl_client.client import E3RL, AsyncE3RL
from e3rl_client.errors import (
    E3RLError,
    EventError,
    LogError,
    NoHealingError,
    ProtocolVersionError,
    SequenceError,
    StreamDroppedError,
)
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
    parse_event,
)
from e3rl_client.settings import Healing, HealingSettings
from e3rl_client.streams import AsyncEventStream, EventStream, Follower, healing_of
from e3rl_client.transcript import Choice, ErasedDraw, Segment, Transcript

__all__ = [
    "E3RL",
    "AsyncE3RL",
    "AsyncEventStream",
    "BudgetExhausted",
    "Choice",
    "E3RLError",
    "ErasedDraw",
    "Event",
    "EventError",
    "EventStream",
    "Follower",
    "Healing",
    "HealingSettings",
    "LogError",
    "NoHealingError",
    "ProtocolVersionError",
    "Segment",
    "SegmentCommitted",
    "SegmentDelta",
    "SegmentErased",
    "SegmentStarted",
    "SequenceError",
    "StreamDroppedError",
    "Summary",
    "TextDelta",
    "Transcript",
    "Uncertainty",
    "UnknownEvent",
    "healing_of",
    "parse_event",
]
