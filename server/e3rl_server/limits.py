"""Saying no politely: while draining, everything new is refused with 503, and every 503 carries Retry-After.

vLLM drains on SIGTERM (`--shutdown-timeout`) but goes on taking requests, which then end empty; and it refuses
requests over its queue's cap (`--max-num-queued-reqs`) without a word on when to come back. Pure ASGI: bodies pass
through untouched and unbuffered.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Seconds a client is asked to wait: a full queue moves with every finished answer, a draining server takes longer
#: to be replaced. openai-python and its like obey.
BUSY_RETRY_AFTER, DRAIN_RETRY_AFTER = 1, 5

#: Reachable to the end: is it alive, and how far has it drained.
_OPEN_WHILE_DRAINING = ("/health/live", "/metrics")

_DRAINING_BODY = json.dumps(
    {
        "error": {
            "message": "The server is shutting down and takes no new requests. Please retry on another instance.",
            "type": "ServiceUnavailableError",
            "param": None,
            "code": 503,
        }
    }
).encode()


class Limits:
    """ASGI middleware; pass it to vLLM with ``--middleware e3rl_server.limits.Limits``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one ASGI scope."""
        if scope["type"] == "lifespan":  # begins after the engine is up and before the first request
            self._watch_for_drain(scope["app"].state.engine_client)
            await self._app(scope, receive, send)
        elif self._draining and scope["path"] not in _OPEN_WHILE_DRAINING:
            await _refuse(scope, send)
        elif scope["type"] == "http":
            await self._app(scope, receive, functools.partial(_send_with_retry_after, send))
        else:
            await self._app(scope, receive, send)

    def _watch_for_drain(self, engine_client: Any) -> None:
        """Learn of a drain: on SIGTERM vLLM calls the engine client's `shutdown`, which returns when drained."""
        if engine_client is None:  # a render-only server has no engine
            return
        shutdown = engine_client.shutdown

        @functools.wraps(shutdown)
        def shutdown_noticed(*args: Any, **kwargs: Any) -> Any:
            self._draining = True
            return shutdown(*args, **kwargs)

        engine_client.shutdown = shutdown_noticed


async def _send_with_retry_after(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start" and message["status"] == 503:
        headers = MutableHeaders(scope=message)
        headers.setdefault("retry-after", str(BUSY_RETRY_AFTER))
    await send(message)


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1012, "reason": "the server is shutting down"})
        return
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_DRAINING_BODY)).encode()),
        (b"retry-after", str(DRAIN_RETRY_AFTER).encode()),
        (b"connection", b"close"),  # a client that pools connections goes elsewhere
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _DRAINING_BODY})
