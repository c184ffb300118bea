"""Healing without our server: vLLM's own, told by flag to take our scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.serving import MODEL, launch

pytestmark = pytest.mark.engine

FORCED = {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1, "retry": {"temperature": 0}}
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Name three planets."}], "max_tokens": 40}


def streamed_text(http: httpx.Client, healing: object) -> tuple[str, int]:
    """The concatenated deltas of a greedy stream, and how many chunks brought text."""
    xargs = {"healing": healing if isinstance(healing, str) else json.dumps(healing)}
    body: dict[str, Any] = {**ASK, "temperature": 0, "stream": True, "vllm_xargs": xargs}
    lines = http.post("/v1/chat/completions", json=body).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    return "".join(pieces), sum(map(bool, pieces))


def test_vllm_serve_heals_with_our_scheduler(tmp_path: Path) -> None:
    flags = ("--served-model-name", MODEL, "--enforce-eager", "--dtype", "float32", "--host", "127.0.0.1")
    scheduler = ("--scheduler-cls", "e3rl_core.engines.vllm_scheduler.HealingScheduler")
    env = {"VLLM_PLUGINS": "e3rl"}
    server = launch(*flags, *scheduler, log=tmp_path / "log", module="tests.e2e.stock_vllm", env=env)
    try:
        server.wait_ready(path="/health")
        with httpx.Client(base_url=server.url, timeout=120) as http:
            plain, by_token = streamed_text(http, "off")
            healed, by_segment = streamed_text(http, FORCED)
            refused = http.post("/v1/chat/completions", json={**ASK, "vllm_xargs": {"healing": '{"gama": 2}'}})
    finally:
        server.stop()
    assert healed == plain
    assert by_segment < by_token / 3
    assert refused.status_code == 400
    assert "healing.gama" in refused.json()["error"]["message"]
