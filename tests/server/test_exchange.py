from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from vllm.sampling_params import SamplingParams

from e3rl_core.policy import HealingPolicy
from e3rl_server.exchange import STOCK, Exchange, HealingClient, current_exchange
from tests.server.fake_vllm import Script, Segment, token
from tests.server.world import PlainClient, Shape, World, tapped_world


def script(text: str, live: bool = False) -> Script:
    pieces = tuple(token(bytes([byte])) for byte in text.encode())
    wrong = tuple(token(b"x") for _ in range(3))
    return Script([[Segment((wrong, pieces), 1)]], live=live)


class Recorder:
    """A fake engine client that only notes what it is asked for."""

    dead_error = "as the engine has it"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, str]] = []

    def generate(self, prompt: Any, params: Any, request_id: str, **_: Any) -> Any:
        self.calls.append((params, request_id))
        return "generator"


def test_outside_a_healing_request_the_engine_gets_what_it_always_got() -> None:
    engine = Recorder()
    client = HealingClient(engine, World().exchanges)
    params = SamplingParams()
    assert client.generate(None, params, "id") == "generator"
    assert engine.calls[0] == (params, "id")
    assert engine.calls[0][0] is params
    assert client.dead_error == "as the engine has it"


def test_beam_search_runs_without_healing_whatever_the_default_is() -> None:
    engine, params = Recorder(), SamplingParams(extra_args={"other": 1})
    token_ = current_exchange.set(STOCK)
    HealingClient(engine, World().exchanges).generate(None, params, "id")
    current_exchange.reset(token_)
    assert engine.calls[0][0].extra_args == {"other": 1, "healing": "off"}
    assert params.extra_args == {"other": 1}


def test_two_clients_with_one_request_id_do_not_see_each_other() -> None:
    async def both(world: World) -> list[PlainClient]:
        async def one(text: str) -> PlainClient:
            client = PlainClient()
            async for message in world.stream(script(text, live=True), Shape()):
                data = client.read(message)
                if "healing" in data and data["healing"]["type"] == "segment.delta":
                    assert set(data["healing"]["text"]) <= {text[0], "x"}
            return client

        return list(await asyncio.gather(one("aaaa"), one("bbbb")))

    with tapped_world() as world:
        first, second = asyncio.run(both(world))
    assert (first.texts[0], second.texts[0]) == ("aaaa", "bbbb")


def test_bad_ops_cost_the_report_and_not_the_output_loop() -> None:
    world = World()
    request = SimpleNamespace(request_id="x", arrival_time=None)
    world.exchanges.tap(request, [{"op": "from the future"}])  # type: ignore[arg-type]


def test_an_exchange_is_forgotten_when_it_closes() -> None:
    with tapped_world() as world:
        body = asyncio.run(world.answer(script("abc"), Shape()))
    assert body["healing"]["erasures"] == 1
    assert body["usage"] == {"completion_tokens": 3, "completion_tokens_details": {"erased_tokens": 3}}
    assert len(world.exchanges) == 0


def test_the_response_id_is_known_before_the_first_chunk() -> None:
    policy = HealingPolicy()
    for suffix, engine_id in (("", "chatcmpl-a"), ("-", "cmpl-a-0"), ("_", "resp_a_0")):
        exchange = Exchange(policy, n=1, streamed=True, id_suffix=suffix)
        exchange.bind(engine_id)
        assert exchange.response_id in ("chatcmpl-a", "cmpl-a", "resp_a")
