"""`E3RL` and `AsyncE3RL`: the SDK's clients, with healing."""

from __future__ import annotations

from functools import cached_property

from openai import AsyncOpenAI, OpenAI

from e3rl_client.resources import (
    AsyncHealingChat,
    AsyncHealingCompletions,
    AsyncHealingResponses,
    HealingChat,
    HealingCompletions,
    HealingResponses,
)


class E3RL(OpenAI):
    """`openai.OpenAI` with a typed ``healing=`` and ``stream_events()`` on chat completions, completions and responses.

    >>> client = E3RL(base_url="http://127.0.0.1:8000/v1", api_key="none")
    >>> isinstance(client.with_options(timeout=10), E3RL)
    True
    """

    @cached_property
    def chat(self) -> HealingChat:
        return HealingChat(self)

    @cached_property
    def completions(self) -> HealingCompletions:
        return HealingCompletions(self)

    @cached_property
    def responses(self) -> HealingResponses:
        return HealingResponses(self)


class AsyncE3RL(AsyncOpenAI):
    """`E3RL` for coroutines; `stream_events` is awaited, as `create` is."""

    @cached_property
    def chat(self) -> AsyncHealingChat:
        return AsyncHealingChat(self)

    @cached_property
    def completions(self) -> AsyncHealingCompletions:
        return AsyncHealingCompletions(self)

    @cached_property
    def responses(self) -> AsyncHealingResponses:
        return AsyncHealingResponses(self)
