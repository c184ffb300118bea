"""Start a real `e3rl serve` as a subprocess, wait until it is ready, stop it: what every end-to-end test stands on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

MODEL = "smollm2-135m-instruct"

#: Keeps a test engine small: 1 GiB of KV cache, and few sequences. Later flags win, so a test can override each.
SMALL = ("--max-model-len", "2048", "--max-num-seqs", "32", "--kv-cache-memory-bytes", "1G")

#: Seconds a start may take: the first one converts the embedded model.
START_TIMEOUT = 240.0


class ServerFailed(AssertionError):
    """The server exited, or was not ready in time; the message ends with its log's last lines."""


@dataclass
class Server:
    """A running server process and where to reach it."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """Everything it has printed so far, stdout and stderr together."""
        return self.log.read_text("utf-8", errors="replace")

    def wait_ready(self, timeout: float = START_TIMEOUT, path: str = "/health/ready") -> None:
        """Block until the readiness probe at `path` answers 200."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailed(f"exited with {self.process.returncode} before it was ready\n{self.tail()}")
            if _answers(f"{self.url}{path}"):
                return
            time.sleep(0.2)
        raise ServerFailed(f"not ready after {timeout} s\n{self.tail()}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the API process alone, as a supervisor would."""
        self.process.send_signal(number)

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM, wait, and kill what is left of the process group; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"still running {timeout} s after SIGTERM\n{self.tail()}") from None
        finally:
            _kill_group(self.process.pid)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.output.splitlines()[-lines:])


def command(*flags: str, module: str = "e3rl_server") -> list[str]:
    """The command line of `e3rl serve` (or of another module's ``serve``) with these flags, in this interpreter."""
    return [sys.executable, "-m", module, "serve", *flags]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(
    *flags: str,
    log: Path,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    module: str = "e3rl_server",
) -> Server:
    """Start a server with the embedded model (or the model in `flags`) and return at once."""
    port = port or free_port()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command(*SMALL, "--port", str(port), *flags, module=module),
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    return Server(process, port, log)


@contextmanager
def serve(*flags: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A ready server for the length of a `with` block."""
    server = launch(*flags, log=log, env=env)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def refused(*flags: str, timeout: float = 90.0, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a start that must fail: its exit status and its standard error."""
    process = subprocess.Popen(
        command(*flags),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=timeout)
    finally:
        _kill_group(process.pid)  # one that starts after all must not outlive its test
    return process.returncode, errors


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
