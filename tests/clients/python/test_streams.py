"""Following streams: what a whole one adds up to, and what each kind of broken one leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError

from e3rl_client import (
    E3RLError,
    EventError,
    Follower,
    NoHealingError,
    ProtocolVersionError,
    SequenceError,
    StreamDroppedError,
    UnknownEvent,
)
from tests.clients.python.servers import (
    ASK,
    Dropped,
    async_client_of,
    chunk,
    client_and_requests,
    client_of,
    event,
    healed,
    sse,
    summary,
)


def followed(chunks: list[dict[str, Any]], **more: Any) -> Any:
    return client_of(content=sse(chunks)).chat.completions.stream_events(**{**ASK, **more})


def failure(**answer: Any) -> E3RLError:
    """The error that following such an answer ends with."""
    with pytest.raises(E3RLError) as caught:
        list(client_of(**answer).chat.completions.stream_events(**ASK))
    return caught.value


def test_a_stream_yields_typed_events_and_keeps_what_they_add_up_to() -> None:
    with followed(healed()) as stream:
        kinds = [event.type for event in stream]
    assert kinds == [
        "segment.started",
        "segment.delta",
        "segment.erased",
        "segment.delta",
        "segment.committed",
        "text.delta",
        "segment.delta",
        "segment.committed",
        "text.delta",
        "summary",
    ]
    assert (stream.committed, stream.live, stream.choice(0).content) == ("It is 4. Yes.", "", "It is 4. Yes.")
    assert [(segment.text, segment.threshold, len(segment.erased)) for segment in stream.segments] == [
        ("It is 4.", None, 1),
        (" Yes.", 3.5, 0),
    ]
    assert stream.segments[0].erased[0].text == "It is 5."
    assert stream.summary.erasures == 1


def test_provisional_text_is_live_until_it_is_erased_or_kept() -> None:
    stream = followed(healed())
    seen = []
    for _ in stream:
        seen.append((stream.committed, stream.live))
    assert seen[:5] == [("", ""), ("", "It is 5."), ("", ""), ("", "It is 4."), ("It is 4.", "")]


async def test_coroutines_get_the_same() -> None:
    client = async_client_of(content=sse(healed()))
    async with await client.chat.completions.stream_events(**ASK) as stream:
        kinds = [event.type async for event in stream]
    assert (len(kinds), stream.committed, stream.summary.mode) == (10, "It is 4. Yes.", "on")


async def test_coroutines_get_the_same_errors() -> None:
    client = async_client_of(stream=Dropped(sse(healed()[:5], done=False)))
    with pytest.raises(StreamDroppedError, match="before the answer did") as caught:
        async for _ in await client.chat.completions.stream_events(**ASK):
            pass
    assert caught.value.committed == "It is 4."


def test_live_events_are_asked_for_and_the_settings_kept() -> None:
    client, bodies = client_and_requests(content=sse(healed()))
    list(client.chat.completions.stream_events(**ASK, healing={"max_erasures": 1}, temperature=0.5))
    assert bodies[0]["healing"] == {"max_erasures": 1, "stream": "live"}
    assert (bodies[0]["stream"], bodies[0]["temperature"]) == (True, 0.5)


def test_a_stream_of_ones_own_can_be_followed() -> None:
    follower = Follower()
    client = client_of(content=sse(healed()))
    for part in client.chat.completions.create(**ASK, stream=True, healing={"stream": "live"}):
        follower.read(part)
    follower.end()
    assert follower.transcript.committed == "It is 4. Yes."


def test_events_and_reasons_that_are_new_are_let_through() -> None:
    chunks = healed()
    chunks[2]["healing"] |= {"reason": "boredom", "mood": "low"}
    chunks[5:] = [chunk("", event(5, "segment.praised", by="nobody")), chunk("", summary(6), finish="stop")]
    stream = followed(chunks)
    new = [told for told in stream if isinstance(told, UnknownEvent)]
    assert [told.type for told in new] == ["segment.praised"]
    assert stream.segments[0].erased[0].reason == "boredom"


# --- what is wrong with a server, and what is kept of its answer ----------------------------------------------------


@pytest.mark.parametrize("length", range(1, 8))
def test_a_connection_that_breaks_leaves_what_was_final(length: int) -> None:
    error = failure(stream=Dropped(sse(healed()[:length], done=False)))
    assert isinstance(error, StreamDroppedError)
    assert error.committed == ("It is 4. Yes." if length == 7 else "It is 4." if length >= 5 else "")
    assert isinstance(error.__cause__, Exception)


@pytest.mark.parametrize("done", [True, False])
def test_a_stream_that_just_ends_is_dropped_too(done: bool) -> None:
    error = failure(content=sse(healed()[:6], done=done))
    assert isinstance(error, StreamDroppedError)
    assert (error.committed, error.transcript.live) == ("It is 4.", " Yes.")


def test_half_a_message_is_no_message() -> None:
    error = failure(content=sse(healed(), done=False)[:-20])
    assert isinstance(error, StreamDroppedError)
    assert error.committed == "It is 4. Yes."


def test_an_error_that_the_server_reports_in_the_stream_is_told() -> None:
    error = failure(content=sse([*healed()[:5], {"error": {"message": "engine died"}}]))
    assert isinstance(error, StreamDroppedError)
    assert "engine died" in str(error)
    assert error.committed == "It is 4."


@pytest.mark.parametrize("missing", range(7))
def test_an_event_that_is_missing_is_noticed(missing: int) -> None:
    chunks = healed()
    del chunks[missing]
    error = failure(content=sse(chunks))
    assert isinstance(error, SequenceError)
    assert "It is 4. Yes.".startswith(error.committed)
    assert f"has seq {missing + 1}, expected {missing}" in str(error)


def test_an_event_that_comes_twice_is_noticed() -> None:
    chunks = healed()
    assert isinstance(failure(content=sse([*chunks[:3], *chunks[2:]])), SequenceError)


@pytest.mark.parametrize(("version", "shown"), [(2, "2"), (None, "None"), ("1.1", "1.1")])
def test_another_protocol_is_refused_and_its_text_kept(version: object, shown: str) -> None:
    chunks = [chunk("It is 4."), chunk("", {**summary(0), "v": version}, finish="stop")]
    error = failure(content=sse(chunks))
    assert isinstance(error, ProtocolVersionError)
    assert str(error) == f"a healing event has protocol version {shown}, this client knows 1"
    assert error.committed == "It is 4."


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"text": 3}, "of type 'segment.delta' has a wrong 'text'"),
        ({"choice": None}, "has a wrong 'choice'"),
        ({"start_char": 2}, "starts at character 2, 0 are committed"),
    ],
)
def test_a_malformed_event_is_named(wrong: dict[str, Any], why: str) -> None:
    chunks = healed()
    chunks[1]["healing"] |= wrong
    error = failure(content=sse(chunks))
    assert isinstance(error, EventError)
    assert why in str(error)


def test_a_commit_of_more_than_was_drawn_is_refused() -> None:
    chunks = healed()
    chunks[4]["healing"]["chars"] = 9
    error = failure(content=sse(chunks))
    assert "commits 9 characters of a draw of 8" in str(error)
    assert error.committed == "It is 4."  # it came in `delta`


def test_a_server_without_healing_gives_its_answer_and_is_named() -> None:
    error = failure(content=sse([chunk("It is "), chunk("4."), chunk(finish="stop")]))
    assert isinstance(error, NoHealingError)
    assert error.committed == "It is 4."


def test_a_server_of_ours_without_healing_refuses_at_once() -> None:
    told = {"message": "healing: this server runs without healing; start it with ..", "param": "healing", "code": 400}
    error = failure(status_code=400, json={"error": told})
    assert isinstance(error, NoHealingError)
    assert error.committed == ""


def test_with_healing_off_nothing_is_expected() -> None:
    stream = followed([chunk("It is 4."), chunk(finish="stop")], healing="off")
    assert [told.type for told in stream] == ["text.delta"]
    assert stream.choice(0).content == "It is 4."


def test_a_request_that_is_refused_is_the_sdks_error() -> None:
    told = {"message": "healing.keep: Input should be 'last' or 'best'", "param": "healing.keep"}
    with pytest.raises(BadRequestError, match=r"healing\.keep"):
        client_of(status_code=400, json={"error": told}).chat.completions.stream_events(**ASK)


def test_leaving_early_closes_the_connection() -> None:
    client = client_of(content=sse(healed()))
    with client.chat.completions.stream_events(**ASK) as stream:
        next(stream)
    assert stream._chunks.response.is_closed
