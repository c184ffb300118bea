"""The messages of a chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletionMessageParam

from e3rl_client.client import E3RL
from e3rl_client.settings import Healing
from e3rl_client.streams import EventStream


@dataclass
class Conversation:
    """Asks one turn after the other; what was final when a turn ended is what the next one builds on.

    Args:
        options: further arguments of every request, as of the SDK's `create`.
    """

    client: E3RL
    model: str
    healing: Healing
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[ChatCompletionMessageParam] = field(default_factory=list)

    def turn(self, prompt: str, show: Callable[[EventStream], None]) -> None:
        """Ask, and hand the answer's stream to `show`, which may end early or raise."""
        asked: list[ChatCompletionMessageParam] = [*self.messages, {"role": "user", "content": prompt}]
        stream = self.client.chat.completions.stream_events(
            model=self.model, messages=asked, healing=self.healing, **self.options
        )
        try:
            with stream:
                show(stream)
        finally:
            if said := stream.choice(0).content:
                self.messages = [*asked, {"role": "assistant", "content": said}]
