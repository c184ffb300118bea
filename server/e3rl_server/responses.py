"""Weaving healing into the events of the Responses API.

Its streams are typed events by nature, so healing gets types of its own, `response.healing.*`, each with the wire event
under `healing`. A commit goes right before the text it releases. With events in between, every later
`sequence_number` moves up. The summary is an event, and the `healing` object of the completed response.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from e3rl_server.exchange import Exchange, current_exchange
from e3rl_server.streaming import complete_body

USAGE_DETAILS = "output_tokens_details"

_DATA = "\ndata: "
_COMPLETED = "event: response.completed\n"


class EventWeaver:
    """Turns one event of the stock stream into the events to send instead."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._sent = 0

    def alone(self, choice: int, event: dict[str, Any]) -> str:
        """A healing event."""
        return self._message(f"response.healing.{event['type']}", {"sequence_number": 0, "healing": event})

    def weave(self, chunk: str) -> Iterator[str]:
        """The SSE messages to send for one of the stock stream."""
        live = self._exchange.live
        completed = chunk.startswith(_COMPLETED)
        if not chunk.startswith("event: ") or not (live or completed):
            yield chunk
            return
        data = json.loads(chunk.partition(_DATA)[2])
        if live:
            yield from self._commits(everything=completed)
        if completed:
            complete_body(data["response"], self._exchange, USAGE_DETAILS)
            if live:
                yield self.alone(0, data["response"]["healing"])
        yield self._message(data.pop("type"), data) if live else _message("response.completed", data)

    def _commits(self, *, everything: bool) -> Iterator[str]:
        for choice, track in list(self._exchange.tracks.items()):
            for event in track.take_due(forced=everything):
                yield self.alone(choice, self._exchange.number(event))

    def _message(self, kind: str, data: dict[str, Any]) -> str:
        if "sequence_number" in data:
            data["sequence_number"] = self._sent
        self._sent += 1
        return _message(kind, {"type": kind, **data})


def _message(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}{_DATA}{json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def within(exchange: Exchange, chunks: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """`chunks`, each made in a context that serves `exchange`.

    The Responses API starts its engine requests while its answer is being streamed, which the web framework does in
    another context than the route's.
    """
    try:
        while True:
            token = current_exchange.set(exchange)
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            finally:
                current_exchange.reset(token)
            yield chunk
    finally:
        await chunks.aclose()
