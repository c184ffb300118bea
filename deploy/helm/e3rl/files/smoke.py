"""What `helm test` runs, one check per pod: python3 smoke.py CHECK URL. The key comes from API_KEY."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx

#: A completion, not a chat: any model can, without a template or a parser.
QUESTION = {"prompt": "The sky is blue because", "max_tokens": 60, "temperature": 0.7}


def models(http: httpx.Client) -> str:
    """A model is served."""
    served = [model["id"] for model in http.get("/v1/models").raise_for_status().json()["data"]]
    check(bool(served), "no model is served")
    return ", ".join(served)


def completion(http: httpx.Client) -> str:
    """It answers."""
    answer = http.post("/v1/completions", json=question(http)).raise_for_status().json()
    check(bool(answer["choices"][0]["text"]), "the answer is empty")
    return f"{answer['usage']['completion_tokens']} tokens"


def healing(http: httpx.Client) -> str:
    """It streams and heals: the events are gapless, and what they commit is what was streamed."""
    text, events = "", []
    for chunk in stream(http, {**question(http), "stream": True, "healing": {"mode": "on", "stream": "live"}}):
        text += "".join(choice["text"] for choice in chunk["choices"])
        events += [chunk["healing"]] if chunk.get("healing") else []
    kinds = [event["type"] for event in events]
    check("segment.committed" in kinds and kinds[-1] == "summary", f"the events are not those of healing: {kinds}")
    check([event["seq"] for event in events] == list(range(len(events))), "an event is missing")
    committed = sum(event["chars"] for event in events if event["type"] == "segment.committed")
    check(committed == len(text) > 0, f"{committed} characters were committed, {len(text)} were streamed")
    return f"{kinds.count('segment.committed')} segments kept, {kinds.count('segment.erased')} draws erased"


def metrics(http: httpx.Client) -> str:
    """It can be watched."""
    exposed = http.get("/metrics").raise_for_status().text
    for name in ("e3rl_requests_total", "e3rl_segments_total", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        check(f"\n{name}{{" in exposed, f"/metrics has no {name}")
    return f"{len(exposed.splitlines())} lines"


def question(http: httpx.Client) -> dict[str, Any]:
    return {**QUESTION, "model": http.get("/v1/models").raise_for_status().json()["data"][0]["id"]}


def stream(http: httpx.Client, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer; an error if it breaks off."""
    with http.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))
    sys.exit("the stream ended without [DONE]")


def check(condition: bool, otherwise: str) -> None:
    if not condition:
        sys.exit(otherwise)


CHECKS: dict[str, Callable[[httpx.Client], str]] = {
    "models": models,
    "completion": completion,
    "healing": healing,
    "metrics": metrics,
}


def main(name: str, url: str) -> None:
    """Run one check; what it found on stdout, or why it failed on stderr and status 1."""
    key = os.environ.get("API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, timeout=120, headers=headers) as http:
            sys.stdout.write(f"{name}: {CHECKS[name](http)}\n")
    except httpx.HTTPError as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
