"""A server that sends what it is told, when it is told: for what a real one cannot be made to do on command."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.clients.python.servers import healed, sse


@dataclass
class Stub:
    """`chunks` go out, each when the test lets it if they are `held`; unless `whole`, the connection then breaks."""

    chunks: list[dict[str, Any]] = field(default_factory=healed)
    held: bool = False
    whole: bool = True
    status: int = 200
    models: str = '{"object": "list", "data": [{"id": "tiny", "object": "model"}]}'
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def send(self, count: int) -> None:
        """Let so many more chunks go."""
        self._allowed.release(count)

    def wait_its_turn(self) -> None:
        if self.held:
            self._allowed.acquire(timeout=60)


@contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
    """The stub on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, stub.models.encode())

        def do_POST(self) -> None:
            stub.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if stub.status != 200:
                self._answer(stub.status, json.dumps({"error": {"message": "refused\nby the stub"}}).encode())
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            if not stub.whole:
                self.send_header("content-length", "1000000")
            self.end_headers()
            for chunk in stub.chunks:
                stub.wait_its_turn()
                self.wfile.write(sse([chunk], done=False))
                self.wfile.flush()
            if stub.whole:
                self.wfile.write(sse([]))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json" if body.startswith(b"{") else "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # a client that leaves is what some tests are about
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
