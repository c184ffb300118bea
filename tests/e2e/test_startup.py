"""A real `e3rl serve`: what it says, that it gets ready, how it stops, and how it fails."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import MODEL, ServerFailed, launch, refused, serve

pytestmark = pytest.mark.engine

STORY = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "stream": True}


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def streamed_tokens(url: str, started: threading.Event, lines: list[str]) -> None:
    with httpx.stream("POST", f"{url}/v1/completions", json=STORY, timeout=120) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            started.set()


def test_a_start_from_banner_to_drain(tmp_path: Path) -> None:
    server = launch("--healing", "off", log=tmp_path / "log")
    try:
        server.wait_ready()
        assert "healing  off: asked for with --healing off" in server.output
        assert f"is ready on {server.url}" in server.output
        assert httpx.get(f"{server.url}/health/live").json() == {"status": "alive"}
        assert httpx.get(f"{server.url}/health").status_code == 200

        lines: list[str] = []
        started = threading.Event()
        stream = threading.Thread(target=streamed_tokens, args=(server.url, started, lines))
        stream.start()
        assert started.wait(60)
        server.signal(signal.SIGTERM)
        refusals = wait_for_refusal(server.url)
        assert refusals.headers["retry-after"] == "5"
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        stream.join(60)
        assert lines[-2] == "data: [DONE]" or lines[-1] == "data: [DONE]"
        assert json.loads([line for line in lines if line.startswith("data: {")][-1][6:])["choices"][0][
            "finish_reason"
        ] == ("length")
        assert server.process.wait(60) == 0
    finally:
        server.stop()


def wait_for_refusal(url: str) -> httpx.Response:
    """The first 503 after SIGTERM; the signal arrives a moment later than it is sent."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        answer = httpx.get(f"{url}/v1/models")
        if answer.status_code == 503:
            return answer
        time.sleep(0.02)
    raise AssertionError("never refused")


def test_limits_of_a_running_server(tmp_path: Path) -> None:
    key = {"authorization": "Bearer a-secret-key"}
    chat = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "a-secret-prompt"}]}
    flags = ("--healing", "off", "--max-num-queued-reqs", "1", "--api-key", "a-secret-key")
    with serve(*flags, log=tmp_path / "log") as server:
        url = f"{server.url}/v1/chat/completions"
        assert httpx.post(url, json=chat).status_code == 401
        assert httpx.post(url, json=chat, headers=key, timeout=60).status_code == 200
        full = httpx.post(url, json={**chat, "n": 2}, headers=key)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        template = httpx.post(url, json={**chat, "chat_template": "{{ 1 }}"}, headers=key)
        assert template.status_code == 400
        assert "a-secret-key" not in server.output
        assert "a-secret-prompt" not in server.output


def test_healing_on_says_so(tmp_path: Path) -> None:
    with serve("--healing", "on", log=tmp_path / "log") as server:
        assert "healing  on: asked for with --healing on" in server.output
        assert "preset   responsive" in server.output
        assert httpx.get(f"{server.url}/version").json()["healing"]["mode"] == "on"


def test_a_refusal_of_the_engine_is_the_last_line(tmp_path: Path) -> None:
    server = launch("--healing", "on", "--logprobs-mode", "processed_logprobs", log=tmp_path / "log")
    with pytest.raises(ServerFailed):
        server.wait_ready()
    assert server.process.wait(60) == 1
    assert last_line(server.output).startswith("e3rl serve: error: healing cannot work with --logprobs-mode")


def test_a_cache_too_small_is_the_last_line(tmp_path: Path) -> None:
    status, errors = refused("--healing", "off", "--kv-cache-memory-bytes", "8M", "--port", "0")
    assert status == 1
    assert last_line(errors).startswith("e3rl serve: error: ")
    assert "KV cache" in last_line(errors)
