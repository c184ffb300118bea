"""What healing costs while it erases nothing: throughput and time to the first live token, against stock vLLM.

Two servers with the same flags and model, one stock, one healing; requests to the second carry a threshold that nothing
exceeds. One is loaded at a time, in the order A B C D D C B A, so that a drift of the machine cancels within a repeat.
Two processes of the same program can differ by several per cent for their whole life, so each repeat starts its own.

    stock       the stock server
    off         the healing server, a request that turns healing off: tells two processes' difference from healing's
    committed   healing on, streamed by the segment, as clients get it by default
    live        healing on, with every provisional token as an event
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.report import BenchmarkError, parser, run, say, spread
from benchmarks.server import Server, serve

TOKENS = 128
#: A first token needs no long answer; this many requests per pass make its median.
FIRST_TOKENS, FIRST_REQUESTS = 8, 8

#: First content token of a stock stream; first provisional text of a live one.
_CONTENT = re.compile(rb'"content":\s*"[^"]')
_PROVISIONAL = re.compile(rb'"type":\s*"segment\.delta"')
_ERASURES = re.compile(rb'"erasures":\s*(\d+)')
_COMPLETION = re.compile(rb'"completion_tokens":\s*(\d+)')

_NEVER = {"mode": "on", "threshold": {"k": 1e9}}


@dataclass(frozen=True)
class Arm:
    """One of the configurations compared: where its requests go and what they say."""

    name: str
    url: str
    model: str
    healing: dict[str, Any] | None

    @property
    def first(self) -> re.Pattern[bytes]:
        return _PROVISIONAL if self.healing and self.healing.get("stream") == "live" else _CONTENT


@dataclass(frozen=True)
class Burst:
    """Some streams at once: seconds until all were over, and until each one's first token."""

    seconds: float
    first: list[float]


class Load:
    """Sends bursts of equal requests; no two prompts are the same, so that nothing is cached."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._sent = 0

    async def burst(self, arm: Arm, streams: int, tokens: int) -> Burst:
        begun = time.perf_counter()
        first = await asyncio.gather(*(self._stream(arm, tokens) for _ in range(streams)))
        return Burst(time.perf_counter() - begun, list(first))

    async def _stream(self, arm: Arm, tokens: int) -> float:
        """One request; seconds to its first token."""
        self._sent += 1
        ask = f"Request {self._sent}: tell a long story about a lighthouse keeper, a storm and a ship."
        body: dict[str, Any] = {
            "model": arm.model,
            "messages": [{"role": "user", "content": ask}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 1.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if arm.healing:
            body["healing"] = arm.healing
        begun = time.perf_counter()
        first, received = None, bytearray()
        async with self._client.stream("POST", f"{arm.url}/v1/chat/completions", json=body) as response:
            async for data in response.aiter_bytes():
                received += data
                if first is None and arm.first.search(received):
                    first = time.perf_counter() - begun
        _check(arm, response.status_code, bytes(received), tokens)
        if first is None:
            raise BenchmarkError(f"{arm.name}: a stream ended without a first token")
        return first


def _check(arm: Arm, status: int, received: bytes, tokens: int) -> None:
    """A figure counts only if both servers did the same work."""
    if status != 200:
        raise BenchmarkError(f"{arm.name}: the server answered {status}: {received[:200].decode(errors='replace')}")
    counts = _COMPLETION.findall(received)
    if not counts or int(counts[-1]) != tokens:
        raise BenchmarkError(f"{arm.name}: a stream brought {counts[-1:] or 'no'} tokens, {tokens} were asked for")
    erasures = _ERASURES.findall(received)
    if arm.healing and arm.healing["mode"] != "off" and not erasures:
        raise BenchmarkError(f"{arm.name}: a stream came without a healing summary")
    if any(map(int, erasures)):
        raise BenchmarkError(f"{arm.name}: something was erased under a threshold that nothing exceeds")


def _arms(stock: Server, healing: Server) -> list[Arm]:
    model = stock.model()
    return [
        Arm("stock", stock.url, model, None),
        Arm("off", healing.url, model, {"mode": "off"}),
        Arm("committed", healing.url, model, _NEVER),
        Arm("live", healing.url, model, {**_NEVER, "stream": "live"}),
    ]


async def compare(arms: Sequence[Arm], streams: Sequence[int], tokens: int) -> list[dict[str, Any]]:
    """All stream counts; one record each, with every arm's throughput and first-token time."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        load = Load(client)
        for arm in arms:
            await load.burst(arm, max(streams), 8)  # to warm up
        records = []
        for count in streams:
            records.append({"streams": count, **await _repeat(load, arms, count, tokens)})
            say(f"{count} streams: {_shown(records[-1])}")
    return records


async def _repeat(load: Load, arms: Sequence[Arm], streams: int, tokens: int) -> dict[str, Any]:
    seconds: dict[str, float] = {arm.name: 0.0 for arm in arms}
    prompt = [arm for arm in arms if arm.name != "committed"]  # its first text is a segment: another thing
    first: dict[str, list[float]] = {arm.name: [] for arm in prompt}
    for arm in (*arms, *reversed(arms)):
        seconds[arm.name] += (await load.burst(arm, streams, tokens)).seconds
    for arm in (*prompt, *reversed(prompt)):
        for _ in range(math.ceil(FIRST_REQUESTS / streams)):
            first[arm.name] += (await load.burst(arm, streams, FIRST_TOKENS)).first
    return {
        "tokens_per_second": {name: 2 * streams * tokens / total for name, total in seconds.items()},
        "first_token_seconds": {name: statistics.median(times) for name, times in first.items()},
    }


def _shown(record: dict[str, Any]) -> str:
    speed = ", ".join(f"{name} {value:.0f}" for name, value in record["tokens_per_second"].items())
    first = ", ".join(f"{name} {1000 * value:.0f}" for name, value in record["first_token_seconds"].items())
    return f"tokens/s {speed}; first token ms {first}"


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over repeats of ratios to stock, paired within each repeat."""
    ratios: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, Any]] = {}
    for name, figure, arm in (
        ("throughput_off", "tokens_per_second", "off"),
        ("throughput", "tokens_per_second", "committed"),
        ("throughput_live", "tokens_per_second", "live"),
        ("first_token", "first_token_seconds", "live"),
    ):
        for count in sorted({record["streams"] for record in records}):
            mine = [record[figure] for record in records if record["streams"] == count]
            interval = spread([values[arm] / values["stock"] for values in mine])
            ratios.setdefault(name, {})[str(count)] = interval["median"]
            intervals.setdefault(name, {})[str(count)] = interval
    return {"ratios": ratios, "intervals": intervals}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    streams, repeats, tokens = (args.streams, args.repeats, TOKENS) if not args.quick else (args.streams[:1], 1, 16)
    if min([*streams, repeats]) < 1 or max(streams) > 32:
        raise BenchmarkError("--streams takes 1 to 32, --repeats at least 1")
    records = []
    for repeat in range(repeats):
        say(f"repeat {repeat + 1} of {repeats}: starting the stock server and the healing one")
        with ExitStack() as servers:
            # Which one starts first, and so gets the better memory, alternates.
            order = ("off", "on") if repeat % 2 == 0 else ("on", "off")
            started = {healing: servers.enter_context(serve(healing, args.model)) for healing in order}
            found = asyncio.run(compare(_arms(started["off"], started["on"]), streams, tokens))
        records += [{"repeat": repeat, **record} for record in found]
    targets = {"throughput": ">= 0.97", "first_token": "<= 1.05"}
    return {"targets": targets, **summarise(records), "tokens_per_stream": tokens, "raw": records}


def main() -> int:
    flags = parser("overhead", "Healing that erases nothing, against stock vLLM, through HTTP.")
    flags.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="Concurrent streams.")
    flags.add_argument("--repeats", type=int, default=5, metavar="N", help="Paired repeats at each stream count.")
    return run("overhead", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
