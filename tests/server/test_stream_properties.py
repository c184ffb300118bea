"""I1 to I5 over random schedules of drafting, erasing and committing, with lagging consumers and split characters."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.fake_vllm import Script, Segment, token
from tests.server.world import KnowingClient, PlainClient, Shape, World, tapped_world

_TEXT = st.text(st.sampled_from("ab .\n<é→🙂"), min_size=1, max_size=12)
_SETTINGS = settings(max_examples=150)


def _pieces(draw: Any, text: str) -> tuple[int, ...]:
    """Tokens of one to three bytes: characters are split over tokens, and over segments."""
    data, pieces = text.encode(), []
    while data:
        size = draw(st.integers(1, 3))
        pieces.append(token(data[:size]))
        data = data[size:]
    return tuple(pieces)


@st.composite
def _segments(draw: Any) -> list[Segment]:
    tokens = _pieces(draw, draw(_TEXT) + draw(_TEXT))
    segments = []
    while tokens:
        size = draw(st.integers(1, 6))
        kept, tokens = tokens[:size], tokens[size:]
        erased = [_pieces(draw, draw(_TEXT)) for _ in range(draw(st.integers(0, 2)))]
        place = draw(st.integers(0, len(erased))) if draw(st.booleans()) else len(erased)
        segments.append(Segment((*erased[:place], kept, *erased[place:]), place, onset=draw(st.booleans())))
    return segments


@st.composite
def _scripts(draw: Any, choices: int, live: bool = True) -> Script:
    steps = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=40)
    mode = draw(st.sampled_from(["on", "on", "shadow"]))
    played = [draw(_segments()) for _ in range(choices)]
    if mode == "shadow":  # erases nothing
        played = [[Segment((segment.draws[segment.kept],), 0) for segment in choice] for choice in played]
    return Script(played, draw(steps), mode, live)


@st.composite
def _shapes(draw: Any) -> Shape:
    chat = draw(st.booleans())
    return Shape(
        prompts=1 if chat else draw(st.integers(1, 2)),
        n=draw(st.integers(1, 3)),
        chat=chat,
        parser_lags=draw(st.booleans()),
        stop=draw(st.sampled_from([[], [], ["ab"], [" .\n", "🙂"]])),
    )


async def _read(world: World, script: Script, shape: Shape, client: PlainClient) -> None:
    async for message in world.stream(script, shape):
        client.read(message)
    assert client.done


@_SETTINGS
@given(st.data())
def test_live_stream_keeps_every_invariant(data: st.DataObject) -> None:
    shape = data.draw(_shapes())
    script = data.draw(_scripts(shape.prompts * shape.n))
    client = KnowingClient(script.mode)
    with tapped_world() as world:
        asyncio.run(_read(world, script, shape, client))
        answer = asyncio.run(world.answer(script, shape))
    texts = dict(enumerate(answer["texts"]))
    assert client.texts == texts  # I1
    if script.mode == "on" or not shape.stop:  # this script's segments do not end where a stop string does
        assert client.replay.committed == texts  # I4
        assert not any(client.replay.open.values())
    assert client.usage["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert client.summary is not None
    assert client.types[-1] == "summary"
    assert client.summary.committed_tokens == client.usage["completion_tokens"]  # I5
    if not shape.stop:  # else the engine is stopped from outside, in mid-script
        assert texts == {i: script.text(i) for i in range(len(script.choices))}
        assert client.usage["completion_tokens_details"] == {"erased_tokens": script.erased_tokens}


@_SETTINGS
@given(st.data())
def test_committed_stream_shows_no_event_but_the_summary(data: st.DataObject) -> None:
    shape = data.draw(_shapes())
    script = data.draw(_scripts(shape.prompts * shape.n, live=False))
    client, healing = PlainClient(), []

    async def read(world: World) -> None:
        async for message in world.stream(script, shape):
            event = client.read(message).get("healing")
            healing.extend([event] if event else [])

    with tapped_world() as world:
        asyncio.run(read(world))
        answer = asyncio.run(world.answer(script, shape))
    assert client.texts == dict(enumerate(answer["texts"]))
    assert [event["type"] for event in healing] == ["summary"]
    assert healing[0]["seq"] == 0
    assert answer["healing"]["committed_tokens"] == healing[0]["committed_tokens"]
    if not shape.stop:
        assert answer["healing"]["erased_tokens"] == healing[0]["erased_tokens"] == script.erased_tokens


@_SETTINGS
@given(st.data())
def test_records_say_where_each_segment_stands(data: st.DataObject) -> None:
    shape = Shape(n=data.draw(st.integers(1, 3)))
    script = data.draw(_scripts(shape.n, live=False))
    with tapped_world() as world:
        answer = asyncio.run(world.answer(script, shape))
    for choice, text in enumerate(answer["texts"]):
        records = [record for record in answer["healing"]["records"] if record["choice"] == choice]
        end = 0
        for record, segment in zip(records, script.choices[choice], strict=True):
            assert record["start_char"] == end
            assert len(record["erased"]) == len(segment.draws) - 1
            end += record["chars"]
        assert end == len(text)


@_SETTINGS
@given(st.data())
def test_a_client_that_leaves_leaves_nothing_behind(data: st.DataObject) -> None:
    shape = data.draw(_shapes())
    script = data.draw(_scripts(shape.prompts * shape.n, live=data.draw(st.booleans())))
    messages = data.draw(st.integers(0, 12))

    async def leave(world: World) -> None:
        stream = world.stream(script, shape)
        for _ in range(messages):
            if await anext(stream, None) is None:
                break
        await stream.aclose()
        del stream
        await asyncio.sleep(0)
        assert len(world.exchanges) == 0
        assert world.engine is not None
        assert not world.engine.processor.request_states or messages == 0

    with tapped_world() as world:
        asyncio.run(leave(world))
