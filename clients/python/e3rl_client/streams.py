"""Following a stream: the SDK's chunks go in, typed events come out, and a transcript grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

from openai import APIError, AsyncStream, Stream
from pydantic import BaseModel

from e3rl_client import wire
from e3rl_client.errors import E3RLError, EventError, NoHealingError, StreamDroppedError
from e3rl_client.events import Event, Summary, parse_event
from e3rl_client.transcript import Choice, Segment, Transcript

NO_HEALING = "the server answers without healing: start it with `e3rl serve --healing on`"


class Follower:
    """Reads the chunks of one stream. For streams that you open yourself, with ``healing={"stream": "live"}``.

    Args:
        heals: whether the request asked for healing, so that a stream without it is an error.
    """

    def __init__(self, *, heals: bool = True) -> None:
        self.transcript = Transcript()
        self._heals = heals
        self._healed = False
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    def read(self, chunk: BaseModel) -> list[Event]:
        """The events of the next chunk, as the SDK yields it.

        Raises:
            ProtocolVersionError, SequenceError, EventError: see `Transcript.feed`.
        """
        parts = wire.parts(chunk)
        self._seen |= parts.seen
        self._finished |= parts.finished
        # Text in a chunk is final, whatever is wrong with its event: so it is taken first.
        texts = [self.transcript.feed(text) for text in parts.texts]
        if parts.healing is None:
            return texts
        self._healed = True
        event = self.transcript.feed(parts.healing)
        return [*texts, event] if isinstance(event, Summary) else [event, *texts]

    def end(self) -> None:
        """The stream is over.

        Raises:
            StreamDroppedError: but the answer is not.
            NoHealingError: healing was asked for, and nothing was heard of it.
        """
        over = bool(self._finished) and self._finished == self._seen
        if self.transcript.summary is not None or (over and not self._heals):
            return
        if over and not self._healed:
            raise NoHealingError(NO_HEALING, self.transcript)
        raise StreamDroppedError("the stream ended before the answer did", self.transcript)

    def broken(self, cause: Exception) -> StreamDroppedError:
        """The error for a connection that broke, or for what the server reported in the stream."""
        why = cause.message.rstrip(".") if isinstance(cause, APIError) else "the last message is incomplete"
        return StreamDroppedError(f"the stream ended before the answer did: {why}", self.transcript)


class _Followed:
    """What is known of a response that is being streamed."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    @property
    def transcript(self) -> Transcript:
        return self._follower.transcript

    @property
    def summary(self) -> Summary | None:
        """What healing did; None until the end."""
        return self.transcript.summary

    @property
    def committed(self) -> str:
        """Choice 0's final text by the events: raw, before reasoning and tool parsers."""
        return self.transcript.committed

    @property
    def live(self) -> str:
        """Choice 0's open draw: it may yet be erased."""
        return self.transcript.live

    @property
    def segments(self) -> list[Segment]:
        """Choice 0's final segments."""
        return self.transcript.segments

    def choice(self, index: int) -> Choice:
        """One of several choices."""
        return self.transcript.choice(index)


class EventStream(_Followed):
    """The events of one response, once. Iteration raises an `E3RLError` for what is wrong with the stream."""

    def __init__(self, chunks: Stream[Any], follower: Follower) -> None:
        super().__init__(follower)
        self._chunks = chunks
        self._events = self._run()

    def _run(self) -> Iterator[Event]:
        with self._chunks:
            chunks = iter(self._chunks)
            while True:
                try:
                    chunk = next(chunks, None)
                except (APIError, ValueError) as error:
                    raise self._follower.broken(error) from error
                if chunk is None:
                    break
                yield from self._follower.read(chunk)
            self._follower.end()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream; the server then stops drawing."""
        self._chunks.close()


class AsyncEventStream(_Followed):
    """`EventStream` for coroutines."""

    def __init__(self, chunks: AsyncStream[Any], follower: Follower) -> None:
        super().__init__(follower)
        self._chunks = chunks
        self._events = self._run()

    async def _run(self) -> AsyncIterator[Event]:
        async with self._chunks:
            chunks = aiter(self._chunks)
            while True:
                try:
                    chunk = await anext(chunks, None)
                except (APIError, ValueError) as error:
                    raise self._follower.broken(error) from error
                if chunk is None:
                    break
                for event in self._follower.read(chunk):
                    yield event
            self._follower.end()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the stream; the server then stops drawing."""
        await self._chunks.close()


def healing_of(answer: BaseModel) -> Summary:
    """What healing did to an answer that was not streamed: a `ChatCompletion`, a `Completion` or a `Response`.

    Raises:
        NoHealingError: the answer does not tell; with the answer's text.
        ProtocolVersionError, EventError: what it tells is of another version, or malformed.

    >>> from openai.types.chat import ChatCompletion
    >>> told = {"v": 1, "type": "summary", "mode": "on", "segments": 3, "erasures": 1, "erased_tokens": 43,
    ...         "committed_tokens": 85, "mean_uncertainty": 2.17}
    >>> healing_of(ChatCompletion.construct(choices=[], healing=told)).erasures
    1
    """
    transcript = Transcript()
    for text in wire.answer_texts(answer):
        transcript.feed(text)
    told = getattr(answer, "healing", None)
    if told is None:
        raise NoHealingError(NO_HEALING, transcript)
    try:
        summary = parse_event(told)
    except E3RLError as error:
        error.transcript = transcript
        raise
    if not isinstance(summary, Summary):
        raise EventError(f"the answer's healing is of type {summary.type!r}, no summary", transcript)
    return summary
