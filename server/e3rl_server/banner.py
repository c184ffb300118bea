"""What a start says: which model, whether it heals and why, and how to try it."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from e3rl_core import __version__
from e3rl_server.deployment import Healing

#: Where the banner's text waits on vLLM's argument namespace until the server is up.
ATTRIBUTE = "e3rl_banner"


def banner(model: str, healing: Healing, url: str, api_key: bool = False, playground: bool = False) -> str:
    """The text shown when the server is ready."""
    key = " -H 'authorization: Bearer YOUR_KEY'" if api_key else ""
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is 7 times 8?"}}]}}'
    lines = [f"e3rl {__version__} is ready on {url}", f"  model    {model}"]
    lines.append(f"  healing  {healing.mode}: {healing.reason}")
    if not healing.is_off:
        profile = str(healing.profile) if healing.profile else "none (a weak built-in prior, adapting to each answer)"
        lines += [f"  preset   {healing.preset}", f"  profile  {profile}"]
    if playground:
        lines.append(f"  watch    {url}/playground")
    lines.append(f"  try it   curl {url}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'")
    return "\n".join(lines) + "\n"


def url_of(host: str | None, port: int, uds: str | None, tls: bool) -> str:
    """Where clients on this machine reach the server."""
    if uds:
        return f"unix:{uds}"
    reachable = "127.0.0.1" if host in (None, "", "0.0.0.0") else "[::1]" if host == "::" else host
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http{'s' if tls else ''}://{reachable}:{port}"


def announce_when_ready(app: FastAPI) -> None:
    """Print the banner once the server's start-up is complete, after vLLM's own start-up messages."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def announcing(started: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        text = getattr(started.state.args, ATTRIBUTE, None)
        async with inner(started) as state:
            if text and _speaks_for_all():
                sys.stderr.write(f"\n{text}\n")
                sys.stderr.flush()
            yield state

    app.router.lifespan_context = announcing  # type: ignore[assignment]  # starlette's unions of callables do not narrow


def _speaks_for_all() -> bool:
    """Whether this is the only API process, or the first of several."""
    return multiprocessing.parent_process() is None or multiprocessing.current_process().name.endswith("_0")
