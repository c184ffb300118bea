"""`e3rl serve` as a subprocess on a port of its own, for as long as an evaluation takes."""

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
    port = _free_port()
    # Requests say themselves how they heal; a profile beside the model still says with which settings.
    command = [sys.executable, "-m", "e3rl_server", "serve", model, "--healing", "shadow", "--port", str(port), *flags]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(process, url, log)
        yield url
    finally:
        _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    with httpx.Client(timeout=2.0) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
                raise EvaluationError(f"--model: the server did not start: {lines[-1]} ({log} has more)")
            with suppress(httpx.HTTPError):
                if client.get(f"{url}/health/ready").status_code == 200:
                    return
            time.sleep(0.2)
    raise EvaluationError(f"--model: the server was not ready after {_READY_SECONDS:.0f} s; {log} tells what it did")


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
