"""Servers as they should not be, and as they are: what a client gets is given, nothing is computed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx

from e3rl_client import E3RL, AsyncE3RL

RECORDED = Path(__file__).parent / "recorded"
SCORE = {"u": 3.0, "mean": 2.0, "max": 4.0, "slope": 0.0}
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]}


class Dropped(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection breaks where it ends."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def _transport(answer: dict[str, Any]) -> tuple[httpx.MockTransport, list[dict[str, Any]]]:
    bodies: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(**{"status_code": 200, **answer})

    return httpx.MockTransport(handle), bodies


def client_of(**answer: Any) -> E3RL:
    """A client whose every request gets this answer: the fields of an `httpx.Response`."""
    return client_and_requests(**answer)[0]


def client_and_requests(**answer: Any) -> tuple[E3RL, list[dict[str, Any]]]:
    """Such a client, and the bodies it has sent."""
    transport, bodies = _transport(answer)
    http = httpx.Client(transport=transport)
    return E3RL(base_url="http://server/v1", api_key="none", http_client=http, max_retries=0), bodies


def async_client_of(**answer: Any) -> AsyncE3RL:
    http = httpx.AsyncClient(transport=_transport(answer)[0])
    return AsyncE3RL(base_url="http://server/v1", api_key="none", http_client=http, max_retries=0)


def sse(chunks: Iterable[dict[str, Any]], *, done: bool = True) -> bytes:
    """Chunks as a stream's body."""
    messages = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*messages, *["data: [DONE]\n\n"][:done]]).encode()


def chunk(
    text: str = "", healing: dict[str, Any] | None = None, *, finish: str | None = None, choice: int = 0
) -> dict[str, Any]:
    """A chunk of a chat completion's stream."""
    delta = {"content": text} if text else {}
    told = {} if healing is None else {"healing": healing}
    choices = [{"index": choice, "delta": delta, "finish_reason": finish}]
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices, **told}


def event(seq: int, kind: str, start: int = 0, *, attempt: int = 0, segment: int = 0, **more: Any) -> dict[str, Any]:
    """A wire event of choice 0."""
    place = {"choice": 0, "channel": "content", "segment": segment, "attempt": attempt, "start_char": start}
    return {"v": 1, "seq": seq, "type": kind, **place, **more}


def summary(seq: int) -> dict[str, Any]:
    sums = {"segments": 1, "erasures": 1, "erased_tokens": 3, "committed_tokens": 3, "mean_uncertainty": 3.0}
    return {"v": 1, "seq": seq, "type": "summary", "mode": "on", **sums}


def healed() -> list[dict[str, Any]]:
    """A stream in which a wrong sentence is erased and drawn again, and a second one begun and kept."""
    scored = {"tokens": 3, "uncertainty": SCORE}
    void = {**scored, "threshold": 2.0, "reason": "uncertainty", "retry": {"attempt": 1, "temperature": 0.7}}
    return [
        chunk("", event(0, "segment.started")),
        chunk("", event(1, "segment.delta", text="It is 5.")),
        chunk("", event(2, "segment.erased", **void)),
        chunk("", event(3, "segment.delta", attempt=1, text="It is 4.")),
        chunk("It is 4.", event(4, "segment.committed", attempt=1, chars=8, attempts=2, **scored)),
        chunk("", event(5, "segment.delta", 8, segment=1, text=" Yes.")),
        chunk(" Yes.", event(6, "segment.committed", 8, segment=1, chars=5, attempts=1, threshold=3.5, **scored)),
        chunk("", summary(7), finish="stop"),
    ]
