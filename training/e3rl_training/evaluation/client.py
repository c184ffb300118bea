"""Draws from a running server: one request each, over OpenAI's API with the `healing` field."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, TypeVar

import httpx

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.samples import Segment
from e3rl_training.evaluation.streaming import Stream

T = TypeVar("T")

#: Seconds for one answer.
_PATIENCE = 1800.0
#: A server that is full says so; waits double from a half second, a minute and a half in all.
_FULL = (429, 503)
_TRIES = 9
_DATA = "data: "


#: Plain text, the messages of a chat, or token ids.
Prompt = str | Sequence[Mapping[str, str]] | Sequence[int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came back for one request; tokens, nats, seconds."""

    text: str
    finish: str
    committed: int
    erased: int
    erasures: int
    u: float | None
    logprobs: tuple[float, ...]
    """Of the kept tokens."""
    pieces: tuple[str, ...]
    """Their text."""
    segments: tuple[Segment, ...]
    seconds: float
    first_token: float | None = None
    first_committed: float | None = None
    prompt_ids: tuple[int, ...] = ()
    """Token ids, where they were asked for; so are the next."""
    ids: tuple[int, ...] = ()

    @property
    def logprob(self) -> float:
        """Mean over the kept tokens; 0 where the server does not tell."""
        return fmean(self.logprobs) if self.logprobs else 0.0


class Server:
    """A server to draw from.

    Args:
        http: a client with the server's address as its base.
        healing: settings that every request lays over the deployment's own.
    """

    def __init__(self, http: httpx.AsyncClient, healing: Mapping[str, Any]) -> None:
        self._http = http
        self._healing = healing
        self.model = ""

    async def connect(self) -> None:
        """Find the name of the model.

        Raises:
            EvaluationError: nothing answers there, or something else than an OpenAI server.
        """
        try:
            answer = await self._http.get("/v1/models")
            answer.raise_for_status()
            self.model = str(answer.json()["data"][0]["id"])
        except httpx.HTTPError as error:
            raise EvaluationError(
                f"--url: no server answers at {self._http.base_url} ({_short(error)}); start one with e3rl serve"
            ) from None
        except (ValueError, LookupError, TypeError):
            raise EvaluationError(f"--url: {self._http.base_url} has no /v1/models of OpenAI's form") from None

    async def policy(self) -> HealingPolicy:
        """The deployment's own settings with those of every request over them.

        Raises:
            EvaluationError: the server does not tell its settings.
        """
        try:
            answer = await self._http.get("/version")
            answer.raise_for_status()
            policy = HealingPolicy.model_validate(answer.json()["healing"]["policy"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            raise EvaluationError(
                f"--url: {self._http.base_url} does not tell its settings at /version; start it with e3rl serve"
            ) from None
        return policy.updated(self._healing)

    async def draw(
        self,
        source: Source,
        prompt: Prompt,
        *,
        room: int,
        rate: float,
        seed: int,
        ids: bool = False,
        streamed: bool = False,
    ) -> Drawn:
        """One draw; the same seed asks the same of the server.

        Args:
            source: how to draw.
            prompt: what it goes on from.
            room: tokens of the answer, at most.
            rate: see `Source.healing`.
            seed: of sampling.
            ids: whether to tell the token ids.
            streamed: whether to find out when the first text comes and what erased draws say.

        Raises:
            EvaluationError: it refused the request, died, or does not heal where it was asked to.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": room,
            "seed": seed,
            **source.sampling(),
            "healing": source.healing(self._healing, rate, seed),
        }
        more: dict[str, Any] = {"return_token_ids": True} if ids else {}
        if isinstance(prompt, str) or isinstance(prompt[0], int):
            path, more = "/v1/completions", {**more, "prompt": prompt, "logprobs": 0}
        else:
            path, more = "/v1/chat/completions", {**more, "messages": prompt, "logprobs": True}
        begun = time.monotonic()
        if not streamed:
            answer = await self._post(path, {**body, **more}, _whole)
            return self._read(source, answer, time.monotonic() - begun)
        # Records come with a stream only where erased draws are returned.
        live = {"return_erased": True, **({"stream": "live"} if source.heals else {})}
        more |= {"stream": True, "stream_options": {"include_usage": True}, "healing": {**body["healing"], **live}}
        stream = await self._post(path, {**body, **more}, partial(_gathered, begun))
        drawn = self._read(source, stream.answer(), time.monotonic() - begun)
        return replace(drawn, first_token=stream.first_token, first_committed=stream.first_committed)

    async def _post(self, path: str, body: dict[str, Any], read: Callable[[httpx.Response], Awaitable[T]]) -> T:
        for attempt in range(_TRIES):
            try:
                async with self._http.stream("POST", path, json=body) as response:
                    if response.status_code == 200:
                        return await read(response)
                    await response.aread()
            except httpx.HTTPError as error:
                raise EvaluationError(f"the server stopped answering ({_short(error)})") from None
            if response.status_code not in _FULL:
                break
            await asyncio.sleep(min(0.5 * 2**attempt, 16.0))
        raise EvaluationError(f"the server answered {response.status_code}: {_reason(response)}")

    def _read(self, source: Source, answer: dict[str, Any], seconds: float) -> Drawn:
        choice = answer["choices"][0]
        usage = answer["usage"]
        healing = answer.get("healing")
        if healing is None and source.heals:
            raise EvaluationError(f"{source.name}: the server does not heal; start it with e3rl serve --healing shadow")
        told = choice.get("logprobs") or {}
        if "text" in choice:
            text, logprobs, pieces = choice["text"], told.get("token_logprobs"), told.get("tokens")
        else:
            text, content = choice["message"].get("content"), told.get("content") or ()
            logprobs, pieces = ([one[key] for one in content] for key in ("logprob", "token"))
        healing = healing or {}
        return Drawn(
            text=text or "",
            finish=str(choice.get("finish_reason")),
            committed=usage["completion_tokens"],
            erased=healing.get("erased_tokens", 0),
            erasures=healing.get("erasures", 0),
            u=healing.get("mean_uncertainty"),
            logprobs=tuple(logprobs or ()),
            pieces=tuple(pieces or ()),
            segments=tuple(map(_segment, healing.get("records") or ())),
            seconds=seconds,
            prompt_ids=tuple(choice.get("prompt_token_ids") or answer.get("prompt_token_ids") or ()),
            ids=tuple(choice.get("token_ids") or ()),
        )


def open_client(url: str, concurrency: int) -> httpx.AsyncClient:
    """An HTTP client for a server's address, with or without `/v1` at its end."""
    # uvicorn closes a connection that was idle for five seconds, httpx's own limit: a request sent just then is lost.
    limits = httpx.Limits(max_connections=concurrency, keepalive_expiry=2.0)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        return httpx.AsyncClient(base_url=base, timeout=httpx.Timeout(_PATIENCE, connect=10.0), limits=limits)
    except (httpx.InvalidURL, ValueError):
        raise EvaluationError(f"--url: {url!r} is no address; write e.g. http://127.0.0.1:8000") from None


async def _whole(response: httpx.Response) -> dict[str, Any]:
    await response.aread()
    found: dict[str, Any] = response.json()
    return found


async def _gathered(begun: float, response: httpx.Response) -> Stream:
    stream = Stream()
    async for line in response.aiter_lines():
        if line.startswith(_DATA) and line != f"{_DATA}[DONE]":
            chunk = json.loads(line.removeprefix(_DATA))
            if "error" in chunk:
                raise EvaluationError(f"the server broke off its answer: {chunk['error']['message']}")
            stream.feed(chunk, time.monotonic() - begun)
    if not stream.is_complete:
        raise EvaluationError("the server broke off its answer, or does not tell its usage in a stream")
    return stream


def _segment(record: dict[str, Any]) -> Segment:
    erased = record.get("erased") or ()
    return Segment(
        tokens=record["tokens"],
        erased=sum(draw["tokens"] for draw in erased),
        u=record["uncertainty"]["u"],
        threshold=record["threshold"],
        chars=record.get("chars"),
        # A reason without an erasure: shadow mode, or, with a limit, a draw that had to stay.
        flagged=bool(erased) or ("reason" in record and "limit" not in record),
        first=erased[0].get("text") if erased else None,
    )


def _reason(response: httpx.Response) -> str:
    try:
        found = response.json()
        return str((found.get("error") or found)["message"])
    except (ValueError, LookupError, AttributeError, TypeError):
        return response.text[:200] or "nothing more"


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
