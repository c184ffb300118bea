"""Servers in this process: one answers mod-chains, right as often as it is told to be; one reads from a script."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

import httpx

from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.client import Server
from e3rl_training.modchain import Problem

T = TypeVar("T")

#: Tokens of an answer, and of a segment.
ANSWER, SEGMENT = 36, 6
#: What erased draws said: no step of any chain.
ERASED = "1+1=x;"
#: Erasures of a segment at most, as `/version` tells.
MAX_ERASURES = 2

#: Text, U and erased tokens of a segment.
Piece = tuple[str, float, int]

_END = 0
#: A threshold that nothing is above.
_NEVER = 1e9


def completion(
    body: dict[str, Any], pieces: Sequence[Piece], bar: float = _NEVER, spikes: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The answer to a request: a token is a character, and one more ends the sequence.

    A segment above the bar would be erased. A token's surprisal is its segment's U; with spikes theirs, and else 0.
    """
    text = "".join(piece[0] for piece in pieces)
    ids, tokens = [*map(ord, text), _END], [*text, "<end>"]
    logprobs = [-u if spikes is None else -spikes.get(one, 0.0) for piece, u, _ in pieces for one in piece]
    logprobs.append(logprobs[-1])
    choice: dict[str, Any] = {"finish_reason": "stop"}
    if "prompt" in body:
        choice |= {"text": text, "logprobs": {"token_logprobs": logprobs, "tokens": tokens}}
    else:
        content = [{"logprob": logprob, "token": token} for logprob, token in zip(logprobs, tokens, strict=True)]
        message = {"role": "assistant", "content": text}
        choice |= {"message": message, "logprobs": {"content": content}}
    found: dict[str, Any] = {
        "choices": [choice],
        "usage": {"completion_tokens": len(ids)},
        "healing": _healing(pieces, bar),
    }
    if body.get("return_token_ids"):
        choice["token_ids"] = ids
        (choice if "prompt" in body else found)["prompt_token_ids"] = [*map(ord, asked(body))]
    return found


def asked(body: dict[str, Any]) -> str:
    """The text that a request goes on from."""
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else text_of(prompt)


def _healing(pieces: Sequence[Piece], bar: float) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    for segment, (text, u, erased) in enumerate(pieces):
        lost = [{"attempt": attempt, "tokens": SEGMENT} for attempt in range(erased // SEGMENT)]
        kept = {"segment": segment, "chars": len(text), "tokens": len(text), "uncertainty": {"u": u}, "threshold": bar}
        records.append({**kept, "erased": lost, **({"reason": "uncertainty"} if u > bar else {})})
    records[-1]["tokens"] += 1
    return {
        "type": "summary",
        "mean_uncertainty": fmean(piece[1] for piece in pieces),
        "erased_tokens": sum(piece[2] for piece in pieces),
        "erasures": sum(piece[2] for piece in pieces) // SEGMENT,
        "records": records,
    }


class ScriptedServer:
    """Writes one answer after the other as it stands, whatever it is asked; it would erase what is above the bar."""

    def __init__(
        self, *answers: Iterable[Piece], bar: float = _NEVER, spikes: Mapping[str, float] | None = None
    ) -> None:
        self._answers = iter(answers)
        self._bar = bar
        self._spikes = spikes
        self.requests: list[dict[str, Any]] = []

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer), base_url="http://scripted")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(json.loads(request.content))
        pieces = list(next(self._answers))
        return httpx.Response(200, json=completion(self.requests[-1], pieces, self._bar, self._spikes))


def pieces(text: str, *us: float) -> list[Piece]:
    """A text in segments of six characters, with their U."""
    return [(text[at : at + SEGMENT], us[at // SEGMENT] if us else 1.0, 0) for at in range(0, len(text), SEGMENT)]


def text_of(ids: Iterable[int]) -> str:
    """What token ids say."""
    return "".join(map(chr, ids))


def ask(server: ScriptedServer, call: Callable[[Server], Awaitable[T]]) -> T:
    """What a call makes of a server."""

    async def run() -> T:
        async with server.client() as http:
            return await call(Server(http, {}))

    return asyncio.run(run())


class FakeServer:
    """Right with probability 0.5 where it samples at 1, 0.95 where it is cooler, and 0.9 where it heals.

    Where it is wrong it is so in the last step, which is also its least certain one.
    """

    def __init__(self, *, heals: bool = True) -> None:
        self.heals = heals
        self.requests: list[dict[str, Any]] = []
        self.healed: Callable[[dict[str, Any]], float] = lambda _: 0.9
        """How often it is right where it heals, by the request's settings."""
        self.dies_after: int | None = None
        self.full = 0
        """How many further requests are turned away."""

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer), base_url="http://fake")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "/folder/fake"}]})
        if request.url.path == "/version":
            policy = HealingPolicy(max_erasures=MAX_ERASURES).model_dump(mode="json")
            return httpx.Response(200, json={"healing": {"policy": policy}} if self.heals else {"version": "1"})
        if self.dies_after is not None and len(self.requests) >= self.dies_after:
            raise httpx.ConnectError("connection refused", request=request)
        if self.full:
            self.full -= 1
            return httpx.Response(503, json={"error": {"message": "full"}})
        body = json.loads(request.content)
        self.requests.append(body)
        if "healing" in body and body["healing"].get("max_erasures") == 63:
            return httpx.Response(400, json={"error": {"message": "healing.max_erasures: too many"}})
        found = self._completion(body)
        if not self.heals:
            del found["healing"]
        if body.get("stream"):
            return httpx.Response(200, text=_stream(body, found))
        return httpx.Response(200, json=found)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        healing = body["healing"]
        chance = 0.5 if body["temperature"] == 1.0 else 0.95
        at_will = healing["mode"] == "on" and "schedule" not in healing
        stream = random.Random(f"{body['seed']}")
        draw = stream.random()
        prompt, _, written = asked(body).partition(">")
        problem = Problem.parse(f"{prompt}>")
        right = draw < (self.healed(healing) if at_will else chance)
        erased = [0] * len(problem.steps)
        if at_will and draw >= chance:  # the last step is erased where it would have been wrong
            erased[-1] = SEGMENT
        elif healing["mode"] == "on" and not at_will:
            schedule = healing["schedule"]
            erased = [SEGMENT * schedule[i % len(schedule)] for i in range(len(erased))]
        solution = problem.solution
        text = solution if right else solution[:-1] + str((int(solution[-1]) + 1 + stream.randrange(3)) % 10)
        u = 0.5 + stream.random() if right else 1.2 + stream.random()
        us = [u] * (len(erased) - 1) + [u + 0.01]
        pieces = [
            (text[at : at + SEGMENT], us[at // SEGMENT], erased[at // SEGMENT]) for at in range(0, len(text), SEGMENT)
        ]
        found = completion(body, pieces[len(written) // SEGMENT :])
        if healing["mode"] == "shadow" and not right:  # its last segment would have been erased
            found["healing"]["records"][-1].update(reason="uncertainty", threshold=u / 2)
        return found


def _stream(body: dict[str, Any], answer: dict[str, Any]) -> str:
    """The answer as a stream: of live ones each draw is shown, then the text in one piece."""
    choice, healing = answer["choices"][0], answer.get("healing")
    chunks: list[dict[str, Any]] = []
    if healing is not None and body["healing"].get("stream") == "live":
        for record in healing["records"]:
            for draw in record["erased"]:
                event = {"type": "segment.delta", "segment": record["segment"], "attempt": draw["attempt"]}
                nothing = {"text": ""} if "text" in choice else {"delta": {}}
                chunks.append({"choices": [nothing], "healing": {**event, "text": ERASED}})
    whole = choice if "text" in choice else {**choice, "delta": choice["message"]}
    chunks.append({"choices": [whole], "prompt_token_ids": answer.get("prompt_token_ids")})
    if healing is not None:
        assert body["healing"]["return_erased"], "else a stream has no records"
        chunks[-1]["healing"] = healing
    chunks.append({"choices": [], "usage": answer["usage"]})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
