"""`e3rl serve` as a subprocess on a port of its own, for as long as an evaluation or a benchmark takes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from e3rl_core.errors import EvaluationError

_READY_SECONDS = 600.0
_STOP_SECONDS = 30.0


@contextmanager
def served(model: str, flags: Sequence[str], log: Path) -> Iterator[str]:
    """The address of a ready server.

    Args:
        model: what to serve.
        flags: further ones of `e3rl serve`.
        log: where it writes what it has to say.

    Raises:
        EvaluationError: it exited or did not get ready; with the last line it said.
    """
    # Requests say themselves how they heal; a profile beside the model still says with which settings.
    with running([model, "--healing", "shadow", *flags], log) as (process, url):
        if not ready(process, url, _READY_SECONDS):
            if process.poll() is not None:
                raise EvaluationError(f"--model: the server did not start: {last_line(log)} ({log} has more)")
            raise EvaluationError(
                f"--model: the server was not ready after {_READY_SECONDS:.0f} s; {log} tells what it did"
            )
        yield url


@contextmanager
def running(arguments: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server's process and its address, ready or not; stopped at the end.

    Args:
        arguments: of `e3rl serve`, without a port.
        log: where it writes what it has to say.
    """
    port = _free_port()
    command = [sys.executable, "-m", "e3rl_server", "serve", *arguments, "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def ready(process: subprocess.Popen[bytes], url: str, seconds: float) -> bool:
    """Wait until a server is ready; False: it exited, or the time ran out."""
    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=2.0) as client:  # one for all probes: making one costs time that a start is charged
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.HTTPError):
                if client.get(f"{url}/health/ready").status_code == 200:
                    return True
            time.sleep(0.1)
    return False


def last_line(log: Path) -> str:
    """What a server said last."""
    lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):  # the engine's processes are in the server's own group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
