"""The shared server: `server("--healing", "on")` returns a running one, started at most once per set of flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.serving import Server, launch


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """A function from flags to a ready server.

    One engine lives at a time: other flags stop the server before, the same flags find it still running.
    """
    running: dict[tuple[str, ...], Server] = {}

    def start(*flags: str) -> Server:
        if flags in running and running[flags].process.poll() is None:
            return running[flags]
        for other in list(running):
            running.pop(other).stop()
        running[flags] = launch(*flags, log=tmp_path_factory.mktemp("server") / "log")
        running[flags].wait_ready()
        return running[flags]

    yield start
    for left in running.values():
        left.stop()
