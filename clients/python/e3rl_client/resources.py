"""The SDK's resources with `healing=` on `create`, and `stream_events`.

`create` is typed by the SDK's own dictionaries of parameters, so that both know the same ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, Unpack, overload

from openai import AsyncStream, BadRequestError, Stream, Timeout
from openai.resources.chat import AsyncChat, Chat
from openai.resources.chat.completions import AsyncCompletions as AsyncChatCompletions
from openai.resources.chat.completions import Completions as ChatCompletions
from openai.resources.completions import AsyncCompletions, Completions
from openai.resources.responses import AsyncResponses, Responses
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as TextParams
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase as ResponseParams
from typing_extensions import TypedDict  # the SDK's: `typing`'s cannot be combined with it before Python 3.12

from e3rl_client.errors import NoHealingError
from e3rl_client.settings import Healing, heals, live
from e3rl_client.streams import NO_HEALING, AsyncEventStream, EventStream, Follower


class _Options(TypedDict, total=False):
    healing: Healing | None
    """A mode, or settings; without it the server's defaults hold, in `stream_events` ``"on"``."""
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, object] | None
    extra_body: object | None
    timeout: float | Timeout | None


class _Chat(ChatParams, _Options, total=False):
    pass


class _Text(TextParams, _Options, total=False):
    pass


class _Response(ResponseParams, _Options, total=False):
    pass


class HealingChatCompletions(ChatCompletions):
    """The SDK's, with `healing=` and `stream_events`."""

    @overload  # type: ignore[override]
    def create(self, *, stream: Literal[False] | None = None, **params: Unpack[_Chat]) -> ChatCompletion: ...
    @overload
    def create(self, *, stream: Literal[True], **params: Unpack[_Chat]) -> Stream[ChatCompletionChunk]: ...
    @overload
    def create(self, *, stream: bool, **params: Unpack[_Chat]) -> ChatCompletion | Stream[ChatCompletionChunk]: ...
    def create(self, **params: Any) -> Any:
        """As the SDK's; `healing` goes into the request's body."""
        return super().create(**_request(params))

    def stream_events(self, **params: Unpack[_Chat]) -> EventStream:
        """Ask for a stream with live events, and follow it.

        Raises:
            NoHealingError: the server refuses to heal.
            openai.APIError: as `create`.
        """
        return _followed(super().create, params)


class HealingCompletions(Completions):
    """The SDK's, with `healing=` and `stream_events`."""

    @overload  # type: ignore[override]
    def create(self, *, stream: Literal[False] | None = None, **params: Unpack[_Text]) -> Completion: ...
    @overload
    def create(self, *, stream: Literal[True], **params: Unpack[_Text]) -> Stream[Completion]: ...
    @overload
    def create(self, *, stream: bool, **params: Unpack[_Text]) -> Completion | Stream[Completion]: ...
    def create(self, **params: Any) -> Any:
        """As the SDK's; `healing` goes into the request's body."""
        return super().create(**_request(params))

    def stream_events(self, **params: Unpack[_Text]) -> EventStream:
        """Ask for a stream with live events, and follow it.

        Raises:
            NoHealingError: the server refuses to heal.
            openai.APIError: as `create`.
        """
        return _followed(super().create, params)


class HealingResponses(Responses):
    """The SDK's, with `healing=` and `stream_events`."""

    @overload  # type: ignore[override]
    def create(self, *, stream: Literal[False] | None = None, **params: Unpack[_Response]) -> Response: ...
    @overload
    def create(self, *, stream: Literal[True], **params: Unpack[_Response]) -> Stream[ResponseStreamEvent]: ...
    @overload
    def create(self, *, stream: bool, **params: Unpack[_Response]) -> Response | Stream[ResponseStreamEvent]: ...
    def create(self, **params: Any) -> Any:
        """As the SDK's; `healing` goes into the request's body."""
        return super().create(**_request(params))

    def stream_events(self, **params: Unpack[_Response]) -> EventStream:
        """Ask for a stream with live events, and follow it.

        Raises:
            NoHealingError: the server refuses to heal.
            openai.APIError: as `create`.
        """
        return _followed(super().create, params)


class HealingChat(Chat):
    """The SDK's, with healing completions."""

    @cached_property
    def completions(self) -> HealingChatCompletions:
        return HealingChatCompletions(self._client)


class AsyncHealingChatCompletions(AsyncChatCompletions):
    """The SDK's, with `healing=` and `stream_events`."""

    @overload  # type: ignore[override]
    async def create(self, *, stream: Literal[False] | None = None, **params: Unpack[_Chat]) -> ChatCompletion: ...
    @overload
    async def create(self, *, stream: Literal[True], **params: Unpack[_Chat]) -> AsyncStream[ChatCompletionChunk]: ...
    @overload
    async def create(
        self, *, stream: bool, **params: Unpack[_Chat]
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]: ...
    async def create(self, **params: Any) -> Any:
        """As the SDK's; `healing` goes into the request's body."""
        return await super().create(**_request(params))

    async def stream_events(self, **params: Unpack[_Chat]) -> AsyncEventStream:
        """Ask for a stream with live events, and follow it.

        Raises:
            NoHealingError: the server refuses to heal.
            openai.APIError: as `create`.
        """
        return await _followed_async(super().create, params)


class AsyncHealingCompletions(AsyncCompletions):
    """The SDK's, with `healing=` and `stream_events`."""

    @overload  # type: ignore[override]
    async def create(self, *, stream: Literal[False] | None = None, **params: Unpack[_Text]) -> Completion: ...
    @overload
    async def create(self, *, stream: Literal[True], **params: Unpack[_Text]) -> AsyncStream[Completion]: ...
    @overload
    async def create(self, *, stream: bool, **params: Unpack[_Text]) -> Completion | AsyncStream[Completion]: ...
    async def create(self, **params: Any) -> Any:
        """As the SDK's; `healing` goes into the request's body."""
        return await super().create(**_request(params))

    async def stream_events(self, **params: Unpack[_Text]) -> AsyncEventStream:
        """Ask for a stream with live events, and follow it.

        Raises:
            NoHealingError: the server refuses to heal.
            openai.APIError: as `create`.
        """
        return await _followed_async(super().create, params)


class AsyncHealingResponses(AsyncResponses):
    """The SDK's, with `healing=` and `stream_events`."""

    @overload  # type: ignore[override]
    async def create(self, *, stream: Literal[False] | None = None, **params: Unpack[_Response]) -> Response: ...
    @overload
    async def create(
        self, *, stream: Literal[True], **params: Unpack[_Response]
    ) -> AsyncStream[ResponseStreamEvent]: ...
    @overload
    async def create(
        self, *, stream: bool, **params: Unpack[_Response]
    ) -> Response | AsyncStream[ResponseStreamEvent]: ...
    async def create(self, **params: Any) -> Any:
        """As the SDK's; `healing` goes into the request's body."""
        return await super().create(**_request(params))

    async def stream_events(self, **params: Unpack[_Response]) -> AsyncEventStream:
        """Ask for a stream with live events, and follow it.

        Raises:
            NoHealingError: the server refuses to heal.
            openai.APIError: as `create`.
        """
        return await _followed_async(super().create, params)


class AsyncHealingChat(AsyncChat):
    """The SDK's, with healing completions."""

    @cached_property
    def completions(self) -> AsyncHealingChatCompletions:
        return AsyncHealingChatCompletions(self._client)


def _request(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the SDK's `create`: what it does not know goes into `extra_body`."""
    asked = dict(params)
    healing = asked.pop("healing", None)
    if healing is None:
        return asked
    body = asked.get("extra_body") or {}
    if "healing" in body:
        raise TypeError("healing is given twice: as an argument and in extra_body")
    return {**asked, "extra_body": {**body, "healing": healing}}


def _live_request(params: Mapping[str, Any]) -> tuple[dict[str, Any], Follower]:
    healing: Healing = params.get("healing") or "on"
    return {**_request({**params, "healing": live(healing)}), "stream": True}, Follower(heals=heals(healing))


def _followed(create: Callable[..., Stream[Any]], params: Mapping[str, Any]) -> EventStream:
    asked, follower = _live_request(params)
    with _refusals():
        chunks = create(**asked)
    return EventStream(chunks, follower)


async def _followed_async(
    create: Callable[..., Awaitable[AsyncStream[Any]]], params: Mapping[str, Any]
) -> AsyncEventStream:
    asked, follower = _live_request(params)
    with _refusals():
        chunks = await create(**asked)
    return AsyncEventStream(chunks, follower)


@contextmanager
def _refusals() -> Iterator[None]:
    """A server of ours that was started without healing refuses the field as a whole."""
    try:
        yield
    except BadRequestError as error:
        if error.param == "healing" and "without healing" in error.message:
            raise NoHealingError(NO_HEALING) from error
        raise
