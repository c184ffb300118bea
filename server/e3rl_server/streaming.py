"""Weaving healing into the SSE chunks that vLLM's chat and completions endpoints send.

Committed streaming touches two kinds of chunks: those with usage, and the finish chunk of the last choice, which gets
the summary. Live streaming puts events between and on the chunks:

    provisional events    at once, each on a chunk with an empty delta
    a commit              on the chunk that brings its text; where several come with one chunk, the last one rides on
                          it and the ones before travel ahead, so that no text is in `delta` before its commit is known
    a commit without text alone, when vLLM's serving layer asks for its next output
    the summary           on the last finish chunk, which is split off the text it may come with

Nothing here ever sends `choices: []`, an event name, or a new key inside `delta`: see protocol.md for what breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Literal, Protocol

from e3rl_server.exchange import Exchange

_PREFIX = "data: "
_DONE = "data: [DONE]"

Kind = Literal["chat.completion.chunk", "text_completion"]


def sse(data: dict[str, Any]) -> str:
    """One SSE message."""
    return f"{_PREFIX}{json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def add_usage(usage: dict[str, Any], exchange: Exchange, details: str) -> None:
    """Say in a usage object how many tokens were erased."""
    usage[details] = {**(usage.get(details) or {}), "erased_tokens": exchange.erased_tokens}


def complete_body(body: dict[str, Any], exchange: Exchange, details: str = "completion_tokens_details") -> None:
    """Add the healing report and the usage details to an answer."""
    body["healing"] = exchange.report()
    if body.get("usage"):
        add_usage(body["usage"], exchange, details)


class ChunkWeaver:
    """Turns one chunk of the stock stream into the chunks to send instead."""

    def __init__(self, exchange: Exchange, kind: Kind, model: str) -> None:
        self._exchange = exchange
        self._envelope = {"id": exchange.response_id, "object": kind, "created": int(time.time()), "model": model}
        self._kind = kind
        self._finished = 0

    def alone(self, choice: int, event: dict[str, Any]) -> str:
        """An event on a chunk that changes nothing."""
        return sse({**self._envelope, "choices": [self._empty(choice)], "healing": event})

    def weave(self, chunk: str) -> Iterator[str]:
        """The chunks to send for a chunk of the stock stream."""
        if not chunk.startswith(_PREFIX):
            yield chunk
            return
        if chunk.startswith(_DONE):
            yield from self._rest()
            yield chunk
            return
        if not self._exchange.live and _CHANGES.search(chunk) is None:
            yield chunk
            return
        data = json.loads(chunk[len(_PREFIX) :])
        if data.get("usage"):
            add_usage(data["usage"], self._exchange, "completion_tokens_details")
        choices = data.get("choices")
        if choices:
            yield from self._weave_choice(data, choices[0])
        else:
            yield from self._rest()
            yield sse(data)

    def _weave_choice(self, data: dict[str, Any], choice: dict[str, Any]) -> Iterator[str]:
        self._envelope.update({key: data[key] for key in ("id", "created", "model") if key in data})
        riding = None
        if self._brings_text(choice):
            track = self._exchange.tracks[choice["index"]]
            track.chunks += 1
            for event in track.take_due():
                if riding is not None:
                    yield self.alone(choice["index"], riding)
                riding = self._exchange.number(event)
        last = bool(choice.get("finish_reason")) and self._is_last_finish()
        if riding is not None:
            if last:
                yield sse({**_without(data, "usage"), "choices": [{**choice, **_UNFINISHED}], "healing": riding})
                choice = {**self._empty(choice["index"]), **{k: choice[k] for k in _FINISH if k in choice}}
                data = {**data, "choices": [choice]}
            else:
                data["healing"] = riding
        if last:
            yield from self._rest()
            data["healing"] = self._exchange.report()
        yield sse(data)

    def _brings_text(self, choice: dict[str, Any]) -> bool:
        if self._kind == "text_completion" or choice.get("finish_reason"):
            return True
        return any(value for key, value in choice.get("delta", {}).items() if key != "role")

    def _is_last_finish(self) -> bool:
        self._finished += 1
        return self._finished == len(self._exchange.tracks)

    def _rest(self) -> Iterator[str]:
        for choice, event in self._exchange.take_all():
            yield self.alone(choice, event)

    def _empty(self, choice: int) -> dict[str, Any]:
        text: dict[str, Any] = {"text": ""} if self._kind == "text_completion" else {"delta": {}}
        return {"index": choice, **text, "logprobs": None, "finish_reason": None}


_FINISH = ("finish_reason", "stop_reason")
_UNFINISHED = dict.fromkeys(_FINISH)


def _without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in data.items() if k != key}


#: A finish reason or usage. Inside JSON strings quotes are escaped, so text cannot look so.
_CHANGES = re.compile(r'"finish_reason":\s*"|"usage":\s*\{')


class Weaver(Protocol):
    """What the two streams below need to know of an endpoint."""

    def alone(self, choice: int, event: dict[str, Any]) -> str:
        """An event as an SSE message of its own."""

    def weave(self, chunk: str) -> Iterator[str]:
        """The SSE messages to send for one of the stock stream."""


async def committed_stream(
    chunks: AsyncGenerator[str, None], exchange: Exchange, weaver: Weaver
) -> AsyncGenerator[str, None]:
    """The stock stream, with the summary and usage details; closes the exchange at its end."""
    try:
        async for chunk in chunks:
            for woven in weaver.weave(chunk):
                yield woven
    finally:
        exchange.close()
        await chunks.aclose()


async def live_stream(
    chunks: AsyncGenerator[str, None], exchange: Exchange, weaver: Weaver
) -> AsyncGenerator[str, None]:
    """The stock stream with all events; closes the exchange at its end."""
    step: asyncio.Task[str] | None = None
    try:
        while True:
            news = exchange.news()
            for choice, event in exchange.take_loose():
                yield weaver.alone(choice, event)
            if step is None:
                step = asyncio.ensure_future(_next(chunks))
            sources: set[asyncio.Future[Any]] = {step, news}
            await asyncio.wait(sources, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                continue
            try:
                chunk = step.result()
            except StopAsyncIteration:
                return
            step = None
            for woven in weaver.weave(chunk):
                yield woven
    finally:
        exchange.close()
        if step is not None:
            step.cancel()
            with contextlib.suppress(BaseException):  # whatever it ended with was for the client, who has left
                await step
        await chunks.aclose()


async def _next(chunks: AsyncGenerator[str, None]) -> str:
    return await anext(chunks)
