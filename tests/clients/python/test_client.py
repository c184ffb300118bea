"""The drop-ins: what they send, what they return, and that they stay the SDK's."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from e3rl_client import E3RL, E3RLError, NoHealingError, healing_of
from tests.clients.python.servers import ASK, RECORDED, async_client_of, client_and_requests, client_of, sse


def test_healing_goes_into_the_body_beside_what_else_does() -> None:
    client, bodies = client_and_requests(json={})
    client.chat.completions.create(**ASK, healing="shadow", extra_body={"top_k": 4})
    client.completions.create(model="m", prompt="p", healing={"segment": {"tokens": 8}})
    client.responses.create(model="m", input="p", healing="off")
    client.chat.completions.create(**ASK)
    assert [body.get("healing") for body in bodies] == ["shadow", {"segment": {"tokens": 8}}, "off", None]
    assert bodies[0]["top_k"] == 4


def test_saying_it_twice_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="given twice"):
        client_of(json={}).chat.completions.create(**ASK, healing="on", extra_body={"healing": "off"})


def test_it_stays_the_sdks_client() -> None:
    client, bodies = client_and_requests(json={"object": "chat.completion", "choices": []})
    assert isinstance(client, openai.OpenAI)
    assert isinstance(client.with_options(timeout=3), E3RL)
    raw = client.with_options(timeout=3).chat.completions.with_raw_response.create(**ASK, healing="on")
    assert raw.status_code == 200
    assert bodies[0]["healing"] == "on"


def test_the_sdks_own_helpers_work() -> None:
    client = client_of(content=(RECORDED / "chat-completions.sse").read_bytes())
    with client.chat.completions.stream(**ASK, extra_body={"healing": {"stream": "live"}}) as stream:
        stream.until_done()
    choices = stream.current_completion_snapshot.choices
    followed = client.chat.completions.stream_events(**ASK)
    assert len(list(followed)) > 0
    assert [choice.message.content for choice in choices] == [followed.choice(i).committed for i in (0, 1)]


def ask(client: Any, path: str) -> Any:
    if path == "responses":
        return client.responses.create(model="m", input="p", healing="on")
    return client.completions.create(model="m", prompt="p") if path == "completions" else _chat(client)


def _chat(client: Any) -> Any:
    return client.chat.completions.create(**ASK, healing="on")


PATHS = ("chat-completions", "completions", "responses")


@pytest.mark.parametrize("path", PATHS)
def test_an_answers_summary_is_typed(path: str) -> None:
    answer = ask(client_of(content=(RECORDED / f"{path}.json").read_bytes()), path)
    summary = healing_of(answer)
    assert summary.erasures > 0
    assert summary.records is not None
    first = summary.records[0]
    assert len(first.erased[0].token_ids or []) == first.erased[0].tokens
    assert sum(record.tokens for record in summary.records) == summary.committed_tokens


async def test_likewise_for_coroutines() -> None:
    client = async_client_of(content=(RECORDED / "chat-completions.json").read_bytes())
    assert healing_of(await client.chat.completions.create(**ASK, healing="on")).mode == "on"


def test_an_answer_without_healing_keeps_its_text() -> None:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It is 4."}}]
    answer = _chat(client_of(json={"id": "1", "object": "chat.completion", "created": 0, "choices": choices}))
    with pytest.raises(NoHealingError) as caught:
        healing_of(answer)
    assert caught.value.committed == "It is 4."


@pytest.mark.parametrize("told", [{"v": 2}, {"v": 1, "type": "summary"}, {"v": 1, "seq": 0, "type": "other"}, 7])
def test_an_answer_whose_healing_cannot_be_read_is_told(told: object) -> None:
    with pytest.raises(E3RLError, match="healing"):
        healing_of(_chat(client_of(json={"object": "chat.completion", "choices": [], "healing": told})))


@pytest.mark.parametrize("path", PATHS)
def test_recorded_streams_add_up_to_the_text_that_any_client_gets(path: str) -> None:
    client = client_of(content=(RECORDED / f"{path}.sse").read_bytes())
    asked: dict[str, Any] = {"chat-completions": ASK, "completions": {"model": "m", "prompt": "p"}}.get(
        path, {"model": "m", "input": "p"}
    )
    endpoint = {"chat-completions": client.chat.completions, "completions": client.completions}.get(
        path, client.responses
    )
    stream = endpoint.stream_events(**asked)
    kinds = {event.type for event in stream}
    assert {"segment.started", "segment.delta", "segment.erased", "segment.committed", "text.delta", "summary"} <= kinds
    for choice in stream.transcript.choices.values():
        assert choice.committed == choice.content != ""
        assert "".join(segment.text for segment in choice.segments) == choice.committed
        assert choice.segments[0].erased[0].text != ""
    assert (
        sum(s.tokens for c in stream.transcript.choices.values() for s in c.segments) == stream.summary.committed_tokens
    )


def test_a_stock_stream_is_untouched() -> None:
    chunks = client_of(content=sse([{"object": "chat.completion.chunk", "choices": []}])).chat.completions.create(
        **ASK, stream=True
    )
    assert isinstance(chunks, openai.Stream)
    assert len(list(chunks)) == 1
