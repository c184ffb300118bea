"""A server in this process that answers mod-chains, and is right as often as it is told to be."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import httpx

from e3rl_training.modchain import Problem

#: Tokens of an answer, and of a segment.
ANSWER, SEGMENT = 36, 6
#: What erased draws said: no step of any chain.
ERASED = "1+1=x;"


class FakeServer:
    """Right with probability 0.5 where it samples at 1, 0.95 where it is cooler, and 0.9 where it heals."""

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
        if self.dies_after is not None and len(self.requests) >= self.dies_after:
            raise httpx.ConnectError("connection refused", request=request)
        if self.full:
            self.full -= 1
            return httpx.Response(503, json={"error": {"message": "full"}})
        body = json.loads(request.content)
        self.requests.append(body)
        if "healing" in body and body["healing"].get("max_erasures") == 63:
            return httpx.Response(400, json={"error": {"message": "healing.max_erasures: too many"}})
        answer = self._completion(body)
        if body.get("stream"):
            return httpx.Response(200, text=_stream(body, answer))
        return httpx.Response(200, json=answer)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        healing = body["healing"]
        chance = 0.5 if body["temperature"] == 1.0 else 0.95
        at_will = healing["mode"] == "on" and "schedule" not in healing
        stream = random.Random(f"{body['seed']}")
        draw = stream.random()
        problem = Problem.parse(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])
        right = draw < (self.healed(healing) if at_will else chance)
        erased = [0] * len(problem.steps)
        if at_will and draw >= chance:  # the last step is erased where it would have been wrong
            erased[-1] = SEGMENT
        elif healing["mode"] == "on" and not at_will:
            schedule = healing["schedule"]
            erased = [SEGMENT * schedule[i % len(schedule)] for i in range(len(erased))]
        solution = problem.solution
        text = solution if right else solution[:-1] + str((int(solution[-1]) + 1 + stream.randrange(3)) % 10)
        found: dict[str, Any] = {
            "choices": [self._choice(body, text, -0.1 if right else -0.4)],
            "usage": {"completion_tokens": ANSWER},
        }
        if self.heals:
            u = 0.5 + stream.random() if right else 1.2 + stream.random()
            found["healing"] = self._healing(text, erased, u, would_erase=healing["mode"] == "shadow" and not right)
        return found

    @staticmethod
    def _choice(body: dict[str, Any], text: str, logprob: float) -> dict[str, Any]:
        if "prompt" in body:
            return {"text": text, "finish_reason": "stop", "logprobs": {"token_logprobs": [logprob] * ANSWER}}
        message = {"role": "assistant", "content": text}
        return {"message": message, "finish_reason": "stop", "logprobs": {"content": [{"logprob": logprob}] * ANSWER}}

    @staticmethod
    def _healing(text: str, erased: list[int], u: float, would_erase: bool) -> dict[str, Any]:
        """A record a step; the last one would have been erased, if any."""
        steps = re.findall("[^;]+;?", text)
        records: list[dict[str, Any]] = []
        for segment, (step, count) in enumerate(zip(steps, erased, strict=True)):
            draws = [{"attempt": attempt, "tokens": SEGMENT} for attempt in range(count // SEGMENT)]
            kept = {"segment": segment, "tokens": SEGMENT, "chars": len(step), "uncertainty": {"u": u}}
            records.append({**kept, "erased": draws})
        if would_erase:
            records[-1]["reason"] = "uncertainty"
        return {
            "type": "summary",
            "mean_uncertainty": u,
            "erased_tokens": sum(erased),
            "erasures": sum(erased) // SEGMENT,
            "records": records,
        }


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
    chunks.append({"choices": [choice if "text" in choice else {**choice, "delta": choice["message"]}]})
    if healing is not None:
        assert body["healing"]["return_erased"], "else a stream has no records"
        chunks[-1]["healing"] = healing
    chunks.append({"choices": [], "usage": answer["usage"]})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
