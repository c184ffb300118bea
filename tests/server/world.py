"""A response through the whole API side, from a scripted engine to what the client gets, and how a client reads it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from vllm.utils.async_utils import merge_async_iterators

from e3rl_core.engines.vllm_compat import add_output_tap, remove_output_tap
from e3rl_core.events import Replay, Summary, parse_event
from e3rl_core.policy import HealingPolicy
from e3rl_server.exchange import Exchange, Exchanges, HealingClient, current_exchange
from e3rl_server.metrics import Metrics
from e3rl_server.streaming import ChunkWeaver, committed_stream, complete_body, live_stream
from tests.server.fake_vllm import FakeEngineClient, Script, fake_chat_stream, fake_completion_stream, sampling


@dataclass
class Shape:
    """What kind of request is made."""

    prompts: int = 1
    n: int = 1
    chat: bool = True
    parser_lags: bool = False
    stop: list[str] = field(default_factory=list)


class World:
    """One API process: its exchanges, and a fake engine per response."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.exchanges = Exchanges(self.metrics)
        self.engine: FakeEngineClient | None = None

    def ask(self, script: Script, shape: Shape, streamed: bool) -> tuple[Exchange, list[AsyncGenerator[Any, None]]]:
        """Start the engine requests of one response, as a serving object does."""
        policy = HealingPolicy(mode=script.mode, stream="live" if script.live else "committed")  # type: ignore[arg-type]
        exchange = Exchange(policy, n=shape.n, streamed=streamed)
        self.engine = FakeEngineClient(script)
        client = HealingClient(self.engine, self.exchanges)
        token = current_exchange.set(exchange)
        try:
            params = sampling(n=shape.n, streamed=streamed, stop=shape.stop)
            generators = [client.generate(None, params, f"rsp-{i}") for i in range(shape.prompts)]
        finally:
            current_exchange.reset(token)
        return exchange, generators

    def stream(self, script: Script, shape: Shape) -> AsyncGenerator[str, None]:
        """The SSE messages the client gets."""
        exchange, generators = self.ask(script, shape, streamed=True)
        if shape.chat:
            stock = fake_chat_stream(generators[0], shape.n, shape.parser_lags)
        else:
            stock = fake_completion_stream(generators, shape.n)
        weaver = ChunkWeaver(exchange, "chat.completion.chunk" if shape.chat else "text_completion", "fake")
        return (live_stream if exchange.live else committed_stream)(stock, exchange, weaver)

    async def answer(self, script: Script, shape: Shape) -> dict[str, Any]:
        """The body of the answer that is not streamed: the texts, usage, and healing."""
        exchange, generators = self.ask(script, shape, streamed=False)
        finals = {}
        async for prompt, output in merge_async_iterators(*generators):
            finals[prompt] = output
        completions = [completion for _, final in sorted(finals.items()) for completion in final.outputs]
        usage = {"completion_tokens": sum(len(completion.token_ids) for completion in completions)}
        body: dict[str, Any] = {"texts": [completion.text for completion in completions], "usage": usage}
        complete_body(body, exchange)
        exchange.close()
        return body


@contextmanager
def tapped_world() -> Iterator[World]:
    """A world whose exchanges are connected to vLLM's output processor."""
    world = World()
    add_output_tap(world.exchanges.tap)
    try:
        yield world
    finally:
        remove_output_tap(world.exchanges.tap)


class PlainClient:
    """The usual loop of an application that knows nothing of healing."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.usage: dict[str, Any] = {}
        self.done = False

    def read(self, message: str) -> dict[str, Any]:
        assert message.startswith("data: ")
        assert message.endswith("\n\n")
        if message == "data: [DONE]\n\n":
            self.done = True
            return {}
        data: dict[str, Any] = json.loads(message[6:])
        if not data["choices"]:
            self.usage = data["usage"]
            return data
        choice = data["choices"][0]
        text = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        self.texts[choice["index"]] = self.texts.get(choice["index"], "") + text
        return data


class KnowingClient(PlainClient):
    """A client that also follows the events, and checks the invariants at every message.

    Under shadow nothing is withheld: text is final when it is drawn, and scored later.
    """

    def __init__(self, mode: str = "on") -> None:
        super().__init__()
        self.mode = mode
        self.replay = Replay()
        self.summary: Summary | None = None
        self.types: list[str] = []

    def read(self, message: str) -> dict[str, Any]:
        data = super().read(message)
        if "healing" in data:
            event = parse_event(data["healing"])
            self.types.append(event.type)
            self.replay.feed(event)
            if isinstance(event, Summary):
                assert data["choices"][0]["finish_reason"]
                self.summary = event
            elif event.type != "segment.committed":
                choice = data["choices"][0]
                assert choice.get("delta", {}) == {}
                assert not choice.get("text")
        for choice, text in self.texts.items():
            committed = self.replay.committed.get(choice, "")
            assert self.mode == "shadow" or committed.startswith(text), (
                "text in delta whose commit has not been announced"
            )
        return data
