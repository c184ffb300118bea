"""`e3rl serve` as a subprocess for a benchmark: start it, wait until it is ready, weigh it, stop it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.report import BenchmarkError

#: The same for every server: a small KV cache, so that two fit side by side, and room for 32 streams.
FLAGS = (
    "--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "2048",
    "--max-num-seqs", "32", "--kv-cache-memory-bytes", "1G", "--disable-uvicorn-access-log",
)  # fmt: skip

READY_TIMEOUT = 300.0


@dataclass
class Server:
    """A server that answers, and how long it took to."""

    process: subprocess.Popen[bytes]
    url: str
    seconds_to_ready: float

    def model(self) -> str:
        """The name that requests call the model by."""
        return str(httpx.get(f"{self.url}/v1/models", timeout=10.0).json()["data"][0]["id"])

    def memory(self) -> dict[str, int]:
        """Bytes held by the process and its children; `proportional` counts shared pages once."""
        import psutil

        root = psutil.Process(self.process.pid)
        infos = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
        return {"resident": sum(info.rss for info in infos), "proportional": sum(info.pss for info in infos)}


@contextmanager
def serve(healing: str, model: str | None, flags: Sequence[str] = FLAGS) -> Iterator[Server]:
    """A ready server for the length of a `with` block.

    Raises:
        BenchmarkError: it exited or did not get ready; with its last line.
    """
    with TemporaryDirectory(prefix="e3rl-bench-") as folder:
        log = Path(folder) / "server.log"
        port = _free_port()
        arguments = ([model] if model else []) + ["--healing", healing, "--port", str(port), *flags]
        begun = time.monotonic()
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "e3rl_server", "serve", *arguments],
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_ready(process, url, log, begun + READY_TIMEOUT)
            yield Server(process, url, time.monotonic() - begun)
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path, deadline: float) -> None:
    with httpx.Client(timeout=2.0) as client:  # one for all probes: making one costs time that the start is charged
        while time.monotonic() < deadline:
            if process.poll() is not None:
                lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
                raise BenchmarkError(f"the server exited with {process.returncode}: {lines[-1]}")
            with suppress(httpx.HTTPError):
                if client.get(f"{url}/health/ready").status_code == 200:
                    return
            time.sleep(0.1)
    raise BenchmarkError(f"the server was not ready after {READY_TIMEOUT:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):  # the engine's processes are in the server's own group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
