"""A server in this process that answers mod-chains, and is right as often as it is told to be."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx

from e3rl_training.modchain import Problem

#: Tokens of an answer, and of a segment.
ANSWER, SEGMENT = 36, 6


class FakeServer:
    """Right with probability 0.5 where it samples at 1, 0.95 where it is cooler, and 0.9 where it heals."""

    def __init__(self, *, heals: bool = True) -> None:
        self.heals = heals
        self.requests: list[dict[str, Any]] = []
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
        return httpx.Response(200, json=self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        healing = body["healing"]
        chance = 0.5 if body["temperature"] == 1.0 else 0.95
        at_will = healing["mode"] == "on" and "schedule" not in healing
        stream = random.Random(f"{body['seed']}")
        draw = stream.random()
        problem = Problem.parse(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])
        right = draw < (0.9 if at_will else chance)
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
            found["healing"] = self._healing(erased, 0.5 + stream.random() if right else 1.2 + stream.random())
        return found

    @staticmethod
    def _choice(body: dict[str, Any], text: str, logprob: float) -> dict[str, Any]:
        if "prompt" in body:
            return {"text": text, "finish_reason": "stop", "logprobs": {"token_logprobs": [logprob] * ANSWER}}
        message = {"role": "assistant", "content": text}
        return {"message": message, "finish_reason": "stop", "logprobs": {"content": [{"logprob": logprob}] * ANSWER}}

    @staticmethod
    def _healing(erased: list[int], u: float) -> dict[str, Any]:
        return {
            "mean_uncertainty": u,
            "erased_tokens": sum(erased),
            "erasures": sum(erased) // SEGMENT,
            "records": [
                {"tokens": SEGMENT, "uncertainty": {"u": u}, "erased": [{"tokens": SEGMENT}] * (count // SEGMENT)}
                for count in erased
            ],
        }
