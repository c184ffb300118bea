"""The wire protocol of a real server: invariants I1 to I5, refusals, and what clients that know nothing of it see."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from e3rl_core.embedded.model import embedded_model
from e3rl_core.events import parse_event
from tests.e2e.serving import MODEL, Server
from tests.server.world import KnowingClient, PlainClient

pytestmark = pytest.mark.engine

#: Every other segment is erased once: what erases is given, what is drawn is the model's.
FORCED = {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1}
LIVE = {**FORCED, "stream": "live"}
#: Erases nearly every segment, from its first token that is not sure.
ONSETS = {
    "segment": {"tokens": 8},
    "threshold": {"k": -2, "floor": 0.0},
    "erase_from": "onset",
    "max_erasures": 1,
    "budget": {"erased_fraction": None},
}
ASK = [{"role": "user", "content": "Write a short story about a lighthouse keeper and a storm."}]
#: Float32 and a seed: two runs of a request draw the same tokens, first draws and redraws.
CHAT = {"model": MODEL, "messages": ASK, "max_tokens": 40, "temperature": 0, "seed": 7}
TEXT = {"model": MODEL, "prompt": "The lighthouse keeper", "max_tokens": 40, "temperature": 0, "seed": 7}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "place",
        "schema": {"type": "object", "properties": {"name": {"enum": ["Oslo", "Lima"]}}, "required": ["name"]},
    },
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oplog")


@pytest.fixture(scope="module")
def url(server: Callable[..., Server], logs: Path) -> str:
    flags = ("--healing", "on", "--dtype", "float32", "--healing-log", str(logs))
    return server(*flags).url


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120) as client:
        yield client


def answer(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()
    return data


def messages(http: httpx.Client, path: str, **body: Any) -> Iterator[str]:
    with http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        yield from (line + "\n\n" for line in response.iter_lines() if line)


def streamed(http: httpx.Client, path: str, client: PlainClient, **body: Any) -> list[dict[str, Any]]:
    """Read a stream; usage is asked for. Returns its chunks."""
    body["stream_options"] = {"include_usage": True}
    chunks = [client.read(message) for message in messages(http, path, **body)]
    assert client.done
    return chunks


def tokens_of(choices: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(entry["token"], entry["logprob"]) for choice in choices for entry in (choice["logprobs"] or {})["content"]]


VARIANTS = {
    "plain": {},
    "stop": {"stop": ["storm", ". "]},
    "two": {"n": 2, "temperature": 0.8},
    "schema": {"response_format": SCHEMA},
    "emoji": {"messages": [{"role": "user", "content": "Repeat after me: 🙂🦀🌊 élève 你好 🙂🦀"}]},
}


@pytest.mark.parametrize("policy", [FORCED, ONSETS], ids=["segments", "onsets"])
@pytest.mark.parametrize("stream", ["committed", "live"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_chat_streams_what_it_answers(http: httpx.Client, variant: str, stream: str, policy: dict[str, Any]) -> None:
    body = {**CHAT, **VARIANTS[variant]}
    whole = answer(http, "/v1/chat/completions", **body, healing=policy)
    client = KnowingClient() if stream == "live" else PlainClient()
    streamed(http, "/v1/chat/completions", client, **body, healing={**policy, "stream": stream})
    texts = {choice["index"]: choice["message"]["content"] for choice in whole["choices"]}
    assert client.texts == texts  # I1
    for key in ("prompt_tokens", "completion_tokens", "completion_tokens_details"):
        assert client.usage[key] == whole["usage"][key]  # I5
    assert whole["usage"]["completion_tokens_details"] == {"erased_tokens": whole["healing"]["erased_tokens"]}
    assert whole["healing"]["erasures"] > 0
    if isinstance(client, KnowingClient):
        assert client.replay.committed == texts  # I4
        assert "segment.erased" in client.types
        assert client.summary is not None
        assert client.summary.erasures == whole["healing"]["erasures"]


@pytest.mark.parametrize("healing", [FORCED, LIVE], ids=["committed", "live"])
def test_logprobs_are_those_of_the_committed_tokens(http: httpx.Client, healing: dict[str, Any]) -> None:
    body = {**CHAT, "logprobs": True, "top_logprobs": 2}
    whole = answer(http, "/v1/chat/completions", **body, healing=FORCED)
    chunks = streamed(http, "/v1/chat/completions", PlainClient(), **body, healing=healing)
    choices = [choice for chunk in chunks for choice in chunk.get("choices", []) if choice.get("logprobs")]
    listed = tokens_of(whole["choices"])
    assert [token for token, _ in tokens_of(choices)] == [token for token, _ in listed]
    assert [value for _, value in tokens_of(choices)] == pytest.approx([value for _, value in listed], abs=1e-4)
    assert len(listed) == whole["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "more", [{}, {"prompt": ["One, two,", "A, b,"], "n": 2, "temperature": 0.8}, {"echo": True}, {"stop": "."}]
)
@pytest.mark.parametrize("healing", [FORCED, LIVE], ids=["committed", "live"])
def test_completions_stream_what_they_answer(http: httpx.Client, more: dict[str, Any], healing: dict[str, Any]) -> None:
    body = {**TEXT, **more}
    whole = answer(http, "/v1/completions", **body, healing=FORCED)
    client = PlainClient() if healing is FORCED or "echo" in more else KnowingClient()
    streamed(http, "/v1/completions", client, **body, healing=healing)
    assert client.texts == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert client.usage["completion_tokens"] == whole["usage"]["completion_tokens"]
    if isinstance(client, KnowingClient):
        assert client.replay.committed == client.texts


def test_a_streamed_tool_call_equals_the_answered_one(http: httpx.Client) -> None:
    body = {**CHAT, "max_tokens": 120, "tools": [TOOL], "tool_choice": "required"}
    body["messages"] = [{"role": "user", "content": "Look up Oslo."}]
    whole = answer(http, "/v1/chat/completions", **body, healing=FORCED)
    called = whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    arguments = ""
    for chunk in streamed(http, "/v1/chat/completions", PlainClient(), **body, healing=LIVE):
        for choice in chunk.get("choices", []):
            arguments += "".join(c["function"].get("arguments", "") for c in choice["delta"].get("tool_calls") or [])
    assert arguments == called
    json.loads(called)


def test_a_record_tells_every_draw(http: httpx.Client) -> None:
    whole = answer(http, "/v1/chat/completions", **CHAT, healing={**FORCED, "return_erased": True})
    records = whole["healing"]["records"]
    assert [record["segment"] for record in records] == list(range(whole["healing"]["segments"]))
    assert sum(record["chars"] for record in records) == len(whole["choices"][0]["message"]["content"])
    first = records[0]
    assert first["attempts"] == 2
    assert len(first["erased"][0]["token_ids"]) == len(first["erased"][0]["logprobs"]) == first["erased"][0]["tokens"]


def test_off_is_silent_and_shadow_changes_nothing(http: httpx.Client) -> None:
    off = answer(http, "/v1/chat/completions", **CHAT, healing="off")
    shadow = answer(http, "/v1/chat/completions", **CHAT, healing={**FORCED, "mode": "shadow"})
    assert "healing" not in off
    assert off["usage"]["completion_tokens_details"] is None
    assert shadow["choices"] == off["choices"]
    assert shadow["healing"]["erasures"] == 0
    assert shadow["healing"]["would_erase"] > 0
    client = KnowingClient("shadow")
    streamed(http, "/v1/chat/completions", client, **CHAT, healing={**LIVE, "mode": "shadow"})
    assert client.texts == client.replay.committed == {0: off["choices"][0]["message"]["content"]}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"healing": {"threshold": {"gamma": 0.5}}}, "healing.threshold.gamma"),
        ({"healing": {"treshold": {}}}, "healing.treshold"),
        ({"healing": 3}, "healing"),
        ({"healing": LIVE}, "healing.stream"),
        ({"healing": {"scope": "reasoning"}}, "healing.scope"),
        ({"healing": "on", "use_beam_search": True, "n": 2}, "healing.mode"),
        ({"healing": "on", "logprobs": True, "top_logprobs": -1}, "healing.mode"),
        ({"vllm_xargs": {"healing": '{"keep": "first"}'}}, "healing.keep"),
    ],
)
def test_bad_settings_get_400_quickly_and_the_connection_lives(
    http: httpx.Client, more: dict[str, Any], param: str
) -> None:
    took = []
    for _ in range(3):  # the quickest counts: what else runs on the machine is not the server's
        began = time.perf_counter()
        response = http.post("/v1/chat/completions", json={**CHAT, **more})
        took.append(time.perf_counter() - began)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, 400)
    assert error["type"] == "BadRequestError"
    assert min(took) < 0.05
    assert http.get("/v1/models").status_code == 200


def test_beam_search_runs_stock_unless_healing_is_asked_for(http: httpx.Client) -> None:
    whole = answer(http, "/v1/completions", **{**TEXT, "max_tokens": 6}, use_beam_search=True, n=2)
    assert "healing" not in whole
    assert len(whole["choices"]) == 2


def test_a_client_that_leaves_frees_the_engine(http: httpx.Client) -> None:
    for healing in (FORCED, LIVE):
        stream = messages(http, "/v1/completions", **{**TEXT, "max_tokens": 1500, "ignore_eos": True}, healing=healing)
        next(stream)
        stream.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and running(http):
        time.sleep(0.2)
    assert running(http) == 0


def running(http: httpx.Client) -> float:
    return sum(map(float, re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", http.get("/metrics").text, re.M)))


def test_metrics_count_what_happened(http: httpx.Client) -> None:
    def read(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    names = ('e3rl_requests_total{mode="on"}', 'e3rl_segments_total{outcome="erased"}', "e3rl_erased_tokens_total")
    before = [read(name) for name in names]
    whole = answer(http, "/v1/chat/completions", **CHAT, healing=FORCED)["healing"]
    after = [read(name) for name in names]
    gained = [b - a for a, b in zip(before, after, strict=True)]
    assert gained == [1, whole["erasures"], whole["erased_tokens"]]


@pytest.mark.parametrize(("backend", "path"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")])
async def test_vllms_own_benchmark_counts_what_was_kept(http: httpx.Client, backend: str, path: str) -> None:
    from vllm.benchmarks.serve import add_cli_args, main_async  # takes seconds
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    model = ["--model", MODEL, "--tokenizer", str(embedded_model())]
    server = ["--base-url", str(http.base_url).rstrip("/"), "--backend", backend, "--endpoint", path]
    load = ["--dataset-name", "random", "--num-prompts", "6", "--input-len", "12", "--output-len", "20"]
    healing = ["--extra-body", json.dumps({"healing": FORCED}), "--ready-check-timeout-sec", "0"]

    def counted() -> list[float]:
        text = http.get("/metrics").text
        names = ("e3rl_committed_tokens_total", "vllm:prompt_tokens_total", "e3rl_erased_tokens_total")
        return [sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))) for name in names]

    before = counted()
    result = await main_async(parser.parse_args([*model, *server, *load, *healing]))
    kept, prompted, erased = (now - then for now, then in zip(counted(), before, strict=True))
    assert (result["completed"], result["failed"]) == (6, 0)
    assert result["total_output_tokens"] == kept == 6 * 20
    assert result["total_input_tokens"] == prompted > 0
    assert erased > 0


def test_the_op_log_has_the_response_and_not_its_text(http: httpx.Client, logs: Path) -> None:
    whole = answer(http, "/v1/chat/completions", **CHAT, healing=FORCED)
    deadline = time.monotonic() + 5
    while not (files := list(logs.glob(f"{whole['id']}-*.jsonl"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    header, *ops, summary = map(json.loads, files[0].read_text("utf-8").splitlines())
    assert header["id"] == whole["id"]
    assert sum(op["op"] == "erased" for op in ops) == summary["erasures"] == whole["healing"]["erasures"]
    assert not any("text" in op or "token_ids" in op for op in ops)


def response_events(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    with http.stream("POST", "/v1/responses", json={**body, "stream": True}) as response:
        return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]


@pytest.mark.parametrize("healing", [FORCED, LIVE], ids=["committed", "live"])
def test_responses(http: httpx.Client, healing: dict[str, Any]) -> None:
    body = {"model": MODEL, "input": ASK[0]["content"], "max_output_tokens": 40, "temperature": 0}
    whole = answer(http, "/v1/responses", **body, healing=FORCED)
    events = response_events(http, **body, healing=healing)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    final = events[-1]["response"]
    text = final["output"][0]["content"][0]["text"]
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == text
    for response in (whole, final):
        assert response["healing"]["erasures"] > 0
        details = response["usage"]["output_tokens_details"]
        assert details["erased_tokens"] == response["healing"]["erased_tokens"]
    client = KnowingClient()
    for event in events:
        if event["type"].startswith("response.healing.") and event["type"] != "response.healing.summary":
            client.replay.feed(parse_event(event["healing"]))
    assert client.replay.committed == ({0: text} if healing is LIVE else {})


def test_the_openai_sdk_needs_to_know_nothing(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    extra = {"healing": LIVE}
    whole = client.chat.completions.create(**CHAT, extra_body={"healing": FORCED})  # type: ignore[call-overload]
    out = ""
    for chunk in client.chat.completions.create(**CHAT, stream=True, extra_body=extra):  # type: ignore[call-overload]
        out += chunk.choices[0].delta.content or ""
    assert out == whole.choices[0].message.content
    with client.chat.completions.stream(**CHAT, stop=[","], extra_body=extra) as stream:  # type: ignore[arg-type]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == out.partition(",")[0]
    assert final.choices[0].message.role == "assistant"
    text = client.completions.create(**TEXT, extra_body={"healing": FORCED})  # type: ignore[call-overload]
    pieces = client.completions.create(**TEXT, stream=True, extra_body=extra)  # type: ignore[call-overload]
    assert "".join(piece.choices[0].text for piece in pieces) == text.choices[0].text
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(**CHAT, extra_body={"healing": {"keep": 1}})  # type: ignore[call-overload]
    assert refusal.value.param == "healing.keep"


def test_the_sdk_follows_a_live_response(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    body: dict[str, Any] = {"model": MODEL, "input": "Say something.", "max_output_tokens": 24, "temperature": 0}
    text, final = "", ""
    for event in client.responses.create(**body, stream=True, extra_body={"healing": LIVE}):
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            final = event.response.output_text
    assert text == final != ""


async def test_the_async_sdk_with_many_streams_at_once(url: str) -> None:
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")

    async def one(index: int) -> None:
        plain, knowing = "", KnowingClient()
        body: dict[str, Any] = {**CHAT, "seed": index, "temperature": 0.9, "n": 1 + index % 2}
        headers = {"X-Request-Id": "everybody-says-this"}
        stream = await client.chat.completions.create(
            **body, stream=True, extra_body={"healing": LIVE}, extra_headers=headers
        )
        async for chunk in stream:
            knowing.read(f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n")
            plain += chunk.choices[0].delta.content or "" if chunk.choices[0].index == 0 else ""
        assert knowing.replay.committed == knowing.texts
        assert knowing.texts[0] == plain
        assert len(knowing.texts) == body["n"]

    await asyncio.gather(*(one(index) for index in range(8)))
