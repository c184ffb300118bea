"""With healing off every answer equals stock vLLM's: one corpus, both servers, equal modulo ids and times."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.serving import MODEL, launch

pytestmark = pytest.mark.engine

ASK = [{"role": "user", "content": "Name three planets."}]
CHAT = {"model": MODEL, "messages": ASK, "max_tokens": 24, "temperature": 0}
TEXT = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 24, "temperature": 0}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}, "required": ["name"]}

CORPUS: dict[str, tuple[str, str, Any]] = {
    "models": ("GET", "/v1/models", None),
    "chat": ("POST", "/v1/chat/completions", CHAT),
    "chat-logprobs": ("POST", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2}),
    "chat-stop": ("POST", "/v1/chat/completions", {**CHAT, "stop": [",", "."]}),
    "chat-seed": ("POST", "/v1/chat/completions", {**CHAT, "temperature": 0.8, "seed": 3}),
    "chat-n": ("POST", "/v1/chat/completions", {**CHAT, "temperature": 0.8, "seed": 3, "n": 2}),
    "chat-schema": (
        "POST",
        "/v1/chat/completions",
        {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}},
    ),
    "chat-tool": (
        "POST",
        "/v1/chat/completions",
        {**CHAT, "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    ),
    "chat-stream": (
        "POST",
        "/v1/chat/completions",
        {**CHAT, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "completion": ("POST", "/v1/completions", TEXT),
    "completion-echo": ("POST", "/v1/completions", {**TEXT, "echo": True, "logprobs": 1}),
    "completion-prompts": ("POST", "/v1/completions", {**TEXT, "prompt": ["One", "Two"]}),
    "completion-stream": ("POST", "/v1/completions", {**TEXT, "stream": True}),
    "responses": (
        "POST",
        "/v1/responses",
        {"model": MODEL, "input": "Name a colour.", "max_output_tokens": 16, "temperature": 0},
    ),
    "tokenize": ("POST", "/tokenize", {"model": MODEL, "prompt": "Hello there"}),
    "unknown-model": ("POST", "/v1/chat/completions", {**CHAT, "model": "nobody"}),
    "bad-temperature": ("POST", "/v1/chat/completions", {**CHAT, "temperature": -3}),
    "bad-json": ("POST", "/v1/chat/completions", "{"),
    "no-such-route": ("GET", "/v1/nothing", None),
}

#: Names, times and random parts, wherever they stand; measured times too.
VOLATILE = {"id", "created", "created_at", "completed_at", "item_id", "tool_call_id", "system_fingerprint"}


def stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if key not in VOLATILE}
    return [stable(item) for item in value] if isinstance(value, list) else value


def joined(chunks: list[dict[str, Any]]) -> Any:
    """A stream without its cuts, which time decides: text and last words per choice, usage, fields used."""
    texts: dict[int, str] = {}
    ends: dict[int, Any] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            piece = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + piece
            ends[choice["index"]] = choice.get("finish_reason") or ends.get(choice["index"])
    fields = sorted({key for chunk in chunks for key in chunk})
    return texts, ends, fields, [chunk["usage"] for chunk in chunks if chunk.get("usage")]


def ask(http: httpx.Client, method: str, path: str, body: Any) -> Any:
    if isinstance(body, str):
        answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
    else:
        answer = http.request(method, path, json=body)
    if answer.headers["content-type"].startswith("text/event-stream"):
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        return answer.status_code, joined([json.loads(line) for line in lines[:-1]])
    return answer.status_code, stable(answer.json())


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Both servers' answers to the corpus, one server at a time."""
    folder = tmp_path_factory.mktemp("differential")
    same = ("--dtype", "float32", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    stock_flags = ("--served-model-name", MODEL, "--enforce-eager", "--host", "127.0.0.1")
    starts = {"stock": (stock_flags, "tests.e2e.stock_vllm"), "ours": (("--healing", "off"), "e3rl_server")}
    collected = {}
    for name, (flags, module) in starts.items():
        server = launch(*flags, *same, log=folder / name, module=module)
        try:
            server.wait_ready(path="/health")
            with httpx.Client(base_url=server.url, timeout=120) as http:
                collected[name] = {key: ask(http, *request) for key, request in CORPUS.items()}
        finally:
            server.stop()
    return collected


@pytest.mark.parametrize("name", CORPUS)
def test_healing_off_is_stock_vllm(answers: dict[str, dict[str, Any]], name: str) -> None:
    assert answers["ours"][name] == answers["stock"][name]
