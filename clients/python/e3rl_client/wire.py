"""What the SDK's objects carry: answers, and the chunks and events of streams.

All of it is read loosely, as the SDK builds it: servers leave fields out, and send some that the SDK does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from e3rl_client.events import TextDelta


@dataclass(frozen=True)
class Parts:
    """What one chunk brings."""

    healing: Any = None
    """The `healing` object; None: the chunk has none."""
    texts: list[TextDelta] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    """Choices that it speaks of."""
    finished: set[int] = field(default_factory=set)
    """Choices that end with it."""


def parts(chunk: BaseModel) -> Parts:
    """Of a chunk of chat completions or completions, or of an event of responses."""
    healing = getattr(chunk, "healing", None)
    if isinstance(chunk, ChatCompletionChunk | Completion):
        texts = [text for choice in chunk.choices for text in _texts(choice)]
        seen = {choice.index for choice in chunk.choices}
        return Parts(healing, texts, seen, {choice.index for choice in chunk.choices if choice.finish_reason})
    kind = getattr(chunk, "type", "")
    channel = {"response.output_text.delta": "content", "response.reasoning_text.delta": "reasoning"}.get(kind)
    texts = [TextDelta(choice=0, channel=channel, text=getattr(chunk, "delta", ""))] if channel else []
    over = kind in ("response.completed", "response.incomplete")
    return Parts(healing, texts, {0}, {0} if over else set())


def answer_texts(answer: BaseModel) -> list[TextDelta]:
    """The texts of an answer that was not streamed."""
    if isinstance(answer, ChatCompletion):
        return [text for choice in answer.choices for text in _said(choice.index, choice.message)]
    if isinstance(answer, Completion):
        return [text for choice in answer.choices for text in _texts(choice)]
    return [TextDelta(choice=0, channel="content", text=getattr(answer, "output_text", ""))]


def _texts(choice: Any) -> list[TextDelta]:
    if not hasattr(choice, "delta"):
        return [TextDelta(choice=choice.index, channel="content", text=choice.text)] if choice.text else []
    return _said(choice.index, choice.delta)


def _said(index: int, message: Any) -> list[TextDelta]:
    # vLLM says `reasoning`, others `reasoning_content`.
    reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
    said = {"reasoning": reasoning, "content": getattr(message, "content", None)}
    return [TextDelta(choice=index, channel=channel, text=text) for channel, text in said.items() if text]
