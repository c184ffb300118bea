"""`e3rl serve` as a subprocess for a benchmark: start it, wait until it is ready, weigh it, stop it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.report import BenchmarkError
from e3rl_training.evaluation.server import last_line, ready, running

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
    arguments = [*([model] if model else []), "--healing", healing, *flags]
    with TemporaryDirectory(prefix="e3rl-bench-") as folder:
        log = Path(folder) / "server.log"
        begun = time.monotonic()
        with running(arguments, log) as (process, url):
            if not ready(process, url, READY_TIMEOUT):
                if process.poll() is not None:
                    raise BenchmarkError(f"the server exited with {process.returncode}: {last_line(log)}")
                raise BenchmarkError(f"the server was not ready after {READY_TIMEOUT:.0f} s")
            yield Server(process, url, time.monotonic() - begun)
