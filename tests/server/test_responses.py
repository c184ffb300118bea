"""The Responses API's stream, over the fake engine; its serving generator is vLLM's reduced to what it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from e3rl_core.events import Replay, parse_event
from e3rl_core.policy import HealingPolicy
from e3rl_server.exchange import Exchange, HealingClient
from e3rl_server.responses import EventWeaver, within
from e3rl_server.streaming import committed_stream, live_stream
from tests.server.fake_vllm import FakeEngineClient, Script, Segment, sampling, token
from tests.server.world import World, tapped_world


def pieces(text: str) -> tuple[int, ...]:
    return tuple(token(bytes([byte])) for byte in text.encode())


def script(live: bool) -> Script:
    segments = [Segment((pieces("wrong"), pieces("one 🙂")), 1), Segment((pieces(" two"),), 0)]
    return Script([segments], steps=[(0, 3)] * 30, live=live)


async def fake_responses_stream(client: HealingClient) -> AsyncGenerator[str, None]:
    """Starts its engine request while it is being read, as vLLM's does."""
    sent = 0

    def event(kind: str, **fields: Any) -> str:
        nonlocal sent
        sent += 1
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': sent - 1, **fields})}\n\n"

    yield event("response.created")
    text, tokens = "", 0
    async for output in client.generate(None, sampling(n=1, streamed=True, stop=[]), "resp_a_0"):
        text += output.outputs[0].text
        tokens += len(output.outputs[0].token_ids)
        yield event("response.output_text.delta", delta=output.outputs[0].text)
    usage = {"output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0}}
    yield event("response.completed", response={"text": text, "usage": usage})


async def events(world: World, live: bool) -> list[dict[str, Any]]:
    policy = HealingPolicy(stream="live" if live else "committed")
    exchange = Exchange(policy, n=1, streamed=True, id_suffix="_")
    client = HealingClient(FakeEngineClient(script(live)), world.exchanges)
    stock = within(exchange, fake_responses_stream(client))
    stream = (live_stream if live else committed_stream)(stock, exchange, EventWeaver(exchange))
    messages = [message async for message in stream]
    assert exchange.response_id == "resp_a"
    assert all(message.startswith("event: ") and message.endswith("\n\n") for message in messages)
    return [json.loads(message.partition("\ndata: ")[2]) for message in messages]


def test_a_live_response_carries_events_between_its_own() -> None:
    with tapped_world() as world:
        sent = asyncio.run(events(world, live=True))
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    replay, text = Replay(), ""
    for event in sent:
        if event["type"].startswith("response.healing."):
            assert event["type"] == f"response.healing.{event['healing']['type']}"
            replay.feed(parse_event(event["healing"]))
        elif event["type"] == "response.output_text.delta":
            text += event["delta"]
            assert replay.committed[0].startswith(text)
    assert text == replay.committed[0] == "one 🙂 two"
    assert [event["type"] for event in sent[-2:]] == ["response.healing.summary", "response.completed"]


def test_a_committed_response_says_it_all_at_its_end() -> None:
    with tapped_world() as world:
        sent = asyncio.run(events(world, live=False))
    assert not any(event["type"].startswith("response.healing.") for event in sent)
    final = sent[-1]["response"]
    assert final["healing"]["erased_tokens"] == 5
    assert final["usage"]["output_tokens_details"] == {"reasoning_tokens": 0, "erased_tokens": 5}
