"""The image that is to be run, Docker's command line, and a stream to stop in."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.serving import MODEL

#: Set by `make test-image`.
IMAGE = os.environ.get("E3RL_TEST_IMAGE", "")

needs_image = pytest.mark.skipif(not IMAGE, reason="no image to run: `make image test-image` builds and runs one")

URL = "http://127.0.0.1:8000"  # where the image's health check looks

#: Seconds: the first start in a new volume converts the embedded model.
START_TIMEOUT = 300.0


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def inspect(name: str) -> Any:
    return json.loads(docker("inspect", name).stdout)[0]


def check_that_a_stream_survives(stop: Callable[[], object]) -> None:
    """Stop a server while it streams: the stream has to end whole, its summary included."""
    lines: list[str] = []
    started = threading.Event()
    stream = threading.Thread(target=_read_story, args=(lines, started))
    stream.start()
    assert started.wait(60) and stream.is_alive()
    stop()
    stream.join(10)
    *_, last, end = filter(None, lines)
    assert end == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["healing"]["type"] == "summary"


def _read_story(lines: list[str], started: threading.Event) -> None:
    # Long enough to be stopped in, short enough for half a core to end it within the drain's 30 s.
    story = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 100, "ignore_eos": True, "stream": True,
             "healing": {"stream": "live"}}  # fmt: skip
    with httpx.stream("POST", f"{URL}/v1/completions", json=story, timeout=120) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            started.set()
