"""The routes, with vLLM's own replaced by a stand-in: what is handed on, and what is done to what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry

from e3rl_server import api
from e3rl_server.exchange import STOCK, Exchange, Exchanges, current_exchange
from e3rl_server.metrics import Metrics
from tests.server.test_requests import deployment

BODY = {"messages": [{"role": "user", "content": "hi"}]}


class FakeStock:
    """A stand-in for vLLM's route: notes what it is asked, answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.exchange: object = None
        self.status = 200

    async def __call__(self, request: Any, raw_request: Request) -> Any:
        self.requests.append(request)
        self.exchange = current_exchange.get()
        if self.status != 200:
            return JSONResponse({"error": {}}, status_code=self.status)
        if request.stream:
            return StreamingResponse(self._chunks(), media_type="text/event-stream")
        return JSONResponse({"id": "x", "usage": {"completion_tokens": 1}}, headers={"x-stock": "kept"})

    async def _chunks(self) -> AsyncGenerator[str, None]:
        if isinstance(self.exchange, Exchange):
            self.exchange.bind("x")
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
        yield f"data: {json.dumps({'id': 'x', 'choices': [choice]})}\n\n"
        yield "data: [DONE]\n\n"


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> FakeStock:
    fake = FakeStock()
    monkeypatch.setattr(api, "CHAT", api.Endpoint(fake, "serving", api.CHAT.weaver))
    return fake


@pytest.fixture
def app(stock: FakeStock) -> FastAPI:
    app = FastAPI()
    api.HealingEndpoints().attach_router(app)
    metrics = Metrics(CollectorRegistry())
    app.state.e3rl = api.Service(deployment(), metrics, Exchanges(metrics), None)
    app.state.serving = SimpleNamespace(models=SimpleNamespace(model_name=lambda _: "m", lora_requests={}))
    return app


async def post(app: FastAPI, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post("/v1/chat/completions", json={**BODY, **body})


async def test_an_answer_is_completed_and_its_headers_stay(app: FastAPI) -> None:
    response = await post(app)
    assert response.json()["healing"]["mode"] == "on"
    assert response.json()["usage"]["completion_tokens_details"] == {"erased_tokens": 0}
    assert response.headers["x-stock"] == "kept"
    assert int(response.headers["content-length"]) == len(response.content)


async def test_a_stream_is_completed(app: FastAPI, stock: FakeStock) -> None:
    response = await post(app, stream=True)
    first, done, _ = response.text.split("\n\n")
    assert json.loads(first[6:])["healing"]["type"] == "summary"
    assert done == "data: [DONE]"
    assert isinstance(stock.exchange, Exchange)
    assert stock.exchange.closed


async def test_off_is_passed_through(app: FastAPI, stock: FakeStock) -> None:
    response = await post(app, healing="off")
    assert response.json() == {"id": "x", "usage": {"completion_tokens": 1}}
    assert stock.exchange is None
    assert stock.requests[0].vllm_xargs == {"healing": "off"}


async def test_beam_search_is_marked_for_the_engine(app: FastAPI, stock: FakeStock) -> None:
    await post(app, use_beam_search=True)
    assert stock.exchange is STOCK


async def test_a_refusal_is_openais_envelope_and_vllm_never_sees_the_request(app: FastAPI, stock: FakeStock) -> None:
    response = await post(app, healing={"keep": "first"})
    error = response.json()["error"]
    assert response.status_code == error["code"] == 400
    assert (error["type"], error["param"]) == ("BadRequestError", "healing.keep")
    assert not stock.requests


async def test_an_error_of_vllm_stays_as_it_is(app: FastAPI, stock: FakeStock) -> None:
    stock.status = 404
    response = await post(app)
    assert (response.status_code, response.json()) == (404, {"error": {}})
    assert isinstance(stock.exchange, Exchange)
    assert stock.exchange.closed


async def test_requests_are_counted_by_mode(app: FastAPI) -> None:
    for mode in ("off", "on", "on"):
        await post(app, healing=mode)
    await post(app, healing="wrong")
    requests = app.state.e3rl.metrics.requests
    counted = {
        sample.labels["mode"]: sample.value for sample in requests.collect()[0].samples if "total" in sample.name
    }
    assert counted == {"off": 1, "shadow": 0, "on": 2}


def test_the_schema_documents_the_field(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    assert "anyOf" in schemas["HealingChatRequest"]["properties"]["healing"]
