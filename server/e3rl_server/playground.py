"""The playground: one page at /playground that shows a model erase and rewrite.

The page is built from clients/playground and its files are kept here, in `static/playground`, so that neither a wheel
nor a clone needs Node. It talks to this server's own API, and the browser holds it to that: see `HEADERS`. The page
itself needs no API key; what it asks for does.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

PATH = "/playground"
ASSETS = Path(__file__).parent / "static" / "playground"

#: Nothing but this server's own files and API: no inline script or style, no frame, no other host.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # names do not change between versions; the files' etags do
}


class Page(StaticFiles):
    """The page's files, with `HEADERS` on each."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As `StaticFiles.get_response`."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


class PlaygroundEndpoints:
    """The vLLM endpoint plugin ``e3rl_playground``."""

    name = "e3rl_playground"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Part of vLLM's plugin protocol: called while the server is built."""
        if not getattr(app.state.args, "no_playground", False):  # a plain `vllm serve` has no such flag
            app.mount(PATH, Page(directory=ASSETS, html=True), name="playground")

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Part of vLLM's plugin protocol; the page has no state."""
