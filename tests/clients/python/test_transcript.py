"""Transcripts: any schedule of drafting, erasing and committing adds up to what the server's own replay says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3rl_client import LogError, SequenceError, StreamDroppedError, Transcript
from e3rl_core.events import Replay
from e3rl_core.events import parse_event as core_event
from tests.clients.python.servers import ASK, RECORDED, SCORE, Dropped, chunk, client_of, healed, sse, summary

_TEXT = st.text(st.sampled_from("ab .\n<é→🙂"), max_size=8)
_SCORED = {"tokens": 3, "uncertainty": SCORE}


def _drafts(place: dict[str, Any], text: str, cut: int) -> list[dict[str, Any]]:
    return [{**place, "type": "segment.delta", "text": part} for part in (text[:cut], text[cut:]) if part]


@st.composite
def _segment(draw: Any, choice: int, index: int, start: int, carried: str) -> tuple[list[dict[str, Any]], str, str]:
    """Events of one segment, what they commit, and what is left of the draw."""
    place = {"choice": choice, "channel": "content", "segment": index, "start_char": start}
    drawn = [carried + draw(_TEXT) for _ in range(draw(st.integers(1, 3)))]
    events: list[dict[str, Any]] = [{**place, "attempt": 0, "type": "segment.started"}]
    for attempt, text in enumerate(drawn):
        events += _drafts({**place, "attempt": attempt}, text, draw(st.integers(0, len(text))))
        if attempt < len(drawn) - 1:
            void = {"threshold": 2.0, "reason": "uncertainty", "retry": {"attempt": attempt + 1}}
            events.append({**place, "attempt": attempt, "type": "segment.erased", **_SCORED, **void})
    kept = draw(st.integers(0, len(drawn) - 1))
    text = drawn[kept]
    chars = draw(st.integers(0, len(text)))
    commit = {**place, "attempt": kept, "type": "segment.committed", "chars": chars, "attempts": len(drawn), **_SCORED}
    if kept < len(drawn) - 1:
        commit["text"] = text
    return [*events, commit], text[:chars], text[chars:]


@st.composite
def _choice(draw: Any, choice: int) -> tuple[list[dict[str, Any]], str]:
    events, final, carried = [], "", ""
    for index in range(draw(st.integers(1, 4))):
        more, text, carried = draw(_segment(choice, index, len(final), carried))
        events, final = events + more, final + text
    return events, final


@st.composite
def _responses(draw: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The chunks of a stream of one to three choices that take turns, and their final texts."""
    choices = [draw(_choice(index)) for index in range(draw(st.integers(1, 3)))]
    left = [list(events) for events, _ in choices]
    chunks: list[dict[str, Any]] = []
    texts = ["" for _ in choices]
    while any(left):
        index = draw(st.sampled_from([i for i, events in enumerate(left) if events]))
        event = {**left[index].pop(0), "v": 1, "seq": len(chunks)}
        released = ""
        if event["type"] == "segment.committed":
            released = choices[index][1][event["start_char"] :][: event["chars"]]
            texts[index] += released
        chunks.append(chunk(released, event, choice=index))
    for index in range(len(choices) - 1):
        chunks.append(chunk(finish="stop", choice=index))
    seq = sum("healing" in sent for sent in chunks)
    return [*chunks, chunk("", summary(seq), finish="stop", choice=len(choices) - 1)], texts


@given(_responses())
def test_committed_text_equals_the_servers_replay(response: tuple[list[dict[str, Any]], list[str]]) -> None:
    chunks, texts = response
    stream = client_of(content=sse(chunks)).chat.completions.stream_events(**ASK)
    replay = Replay()
    for event in stream:
        if event.type == "text.delta":
            continue
        replay.feed(core_event(event.model_dump(exclude_none=True)))
        for index, choice in stream.transcript.choices.items():
            assert choice.committed == replay.committed.get(index, "")
            assert choice.live == replay.open.get(index, "")
            assert texts[index].startswith(choice.committed)
    assert [stream.choice(index).committed for index in range(len(texts))] == texts
    assert [stream.choice(index).content for index in range(len(texts))] == texts
    events = [sent["healing"] for sent in chunks if "healing" in sent]
    assert Transcript.replay(events).choices.keys() == stream.transcript.choices.keys()


@given(_responses(), st.data())
def test_a_stream_that_breaks_anywhere_leaves_final_text_only(
    response: tuple[list[dict[str, Any]], list[str]], data: st.DataObject
) -> None:
    chunks, texts = response
    length = data.draw(st.integers(0, len(chunks) - 1))
    body = sse(chunks[:length], done=False)
    broken = data.draw(st.sampled_from([{"stream": Dropped(body)}, {"content": body}]))
    with pytest.raises(StreamDroppedError) as caught:
        list(client_of(**broken).chat.completions.stream_events(**ASK))
    assert caught.value.transcript is not None
    sent = [text["choices"][0] for text in chunks[:length]]
    for index, text in enumerate(texts):
        told = "".join(choice["delta"].get("content", "") for choice in sent if choice["index"] == index)
        assert caught.value.transcript.choice(index).final == told
        assert text.startswith(told)


@given(_responses(), st.data())
def test_a_lost_event_is_noticed_wherever_it_was(
    response: tuple[list[dict[str, Any]], list[str]], data: st.DataObject
) -> None:
    chunks, texts = response
    told = [i for i, sent in enumerate(chunks) if "healing" in sent][:-1]
    del chunks[data.draw(st.sampled_from(told))]
    with pytest.raises(SequenceError) as caught:
        list(client_of(content=sse(chunks)).chat.completions.stream_events(**ASK))
    assert texts[0].startswith(caught.value.transcript.committed)


# --- replaying what was kept ----------------------------------------------------------------------------------------


def events() -> list[dict[str, Any]]:
    return [sent["healing"] for sent in healed()]


def test_recorded_events_are_replayed_up_to_any_point() -> None:
    transcript = Transcript.replay(events()[:6])
    assert (transcript.committed, transcript.live) == ("It is 4.", " Yes.")
    assert Transcript.replay(events()).summary is not None


def test_events_as_a_stream_yields_them_are_replayed_with_the_answer() -> None:
    transcript = Transcript.replay(client_of(content=sse(healed())).chat.completions.stream_events(**ASK))
    assert transcript.choice(0).content == transcript.committed == "It is 4. Yes."


def test_an_error_has_the_transcript_up_to_it() -> None:
    with pytest.raises(SequenceError) as caught:
        Transcript.replay([*events()[:5], *events()[6:]])
    assert caught.value.committed == "It is 4."


def test_an_op_log_is_replayed_to_the_text_that_was_answered() -> None:
    transcript = Transcript.replay(RECORDED / "completions.jsonl")
    answer = json.loads((RECORDED / "completions.json").read_text("utf-8"))
    assert transcript.committed == answer["choices"][0]["text"]
    assert transcript.live == ""
    records = answer["healing"]["records"]
    assert [segment.tokens for segment in transcript.segments] == [record["tokens"] for record in records]
    assert transcript.segments[0].threshold == records[0]["threshold"]
    assert transcript.segments[0].erased[0].text != ""
    assert transcript.summary is not None
    assert transcript.summary.erasures == answer["healing"]["erasures"]


@pytest.fixture
def lines() -> list[str]:
    return (RECORDED / "completions.jsonl").read_text("utf-8").splitlines(keepends=True)


def test_an_unfinished_log_is_replayed_as_far_as_it_goes(lines: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl.partial"
    log.write_text("".join(lines[:4]) + lines[4][:20], "utf-8")
    transcript = Transcript.replay(str(log))
    assert transcript.summary is None
    assert Transcript.replay(RECORDED / "completions.jsonl").committed.startswith(transcript.committed)


def test_text_with_other_line_separators_stays_one_line(lines: list[str], tmp_path: Path) -> None:
    op = {"choice": 0, "op": "committed", "segment": 0, "attempt": 0, **_SCORED, "threshold": 2.0, "attempts": 1}
    log = tmp_path / "log.jsonl"
    log.write_text(lines[0] + json.dumps({**op, "text": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", "utf-8")
    assert Transcript.replay(log).committed == "a\u2028b\x85c"


def without_text(line: str) -> str:
    return json.dumps({k: v for k, v in json.loads(line).items() if k not in ("text", "token_ids")}) + "\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda lines: lines[1:], "does not begin with a header"),
        (lambda lines: [*lines[:3], "{nonsense\n"], "line 4 is damaged"),
        (lambda lines: [*lines[:2], '{"op": "committed"}\n'], "line 3 is damaged"),
        (lambda lines: [*lines[:2], '{"op": "committed", "choice": 0}\n'], "has a missing 'tokens'"),
        (lambda lines: [without_text(line) for line in lines if '"prompt"' not in line], "has no text"),
        (lambda lines: [], "does not begin with a header"),
        (lambda lines: ["\udcff"], "is not text"),
    ],
)
def test_a_log_that_cannot_be_replayed_is_named(change: Any, why: str, lines: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(change(lines)), "utf-8", errors="surrogateescape")
    with pytest.raises(LogError, match=why) as caught:
        Transcript.replay(log)
    assert str(log) in str(caught.value)


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot be read \(No such file"):
        Transcript.replay(tmp_path / "nowhere.jsonl")
