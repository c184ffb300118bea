"""The middleware: Retry-After on every 503, refusal of what is new while draining, nothing else touched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from e3rl_server.limits import Limits


class Engine:
    """Stands in for vLLM's engine client."""

    stopped_with: float | None = None

    def shutdown(self, timeout: float | None = None) -> None:
        self.stopped_with = timeout


def build(engine: Engine | None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(Limits)
    app.state.engine_client = engine

    @app.get("/busy")
    async def busy() -> JSONResponse:
        return JSONResponse({}, status_code=503)

    @app.get("/patient")
    async def patient() -> JSONResponse:
        return JSONResponse({}, status_code=503, headers={"Retry-After": "60"})

    @app.get("/health/live")
    @app.get("/fine")
    async def fine() -> dict[str, str]:
        return {}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            if engine is not None:
                engine.shutdown(timeout=1)  # the drain begins in mid-stream
            yield "b"

        return StreamingResponse(parts())

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.close()

    return app


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(build(engine)) as client:
        yield client


def test_a_503_says_when_to_come_back(client: TestClient) -> None:
    assert client.get("/busy").headers["retry-after"] == "1"


def test_a_routes_own_retry_after_stays(client: TestClient) -> None:
    assert client.get("/patient").headers["retry-after"] == "60"


def test_other_answers_carry_none(client: TestClient) -> None:
    assert "retry-after" not in client.get("/fine").headers


def test_new_requests_are_refused_while_draining(client: TestClient, engine: Engine) -> None:
    engine.shutdown(timeout=30)
    answer = client.get("/fine")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["connection"] == "close"
    assert answer.json()["error"]["code"] == 503


def test_the_engine_is_still_shut_down(client: TestClient, engine: Engine) -> None:
    engine.shutdown(timeout=30)
    assert engine.stopped_with == 30


def test_liveness_answers_to_the_end(client: TestClient, engine: Engine) -> None:
    engine.shutdown()
    assert client.get("/health/live").status_code == 200


def test_a_stream_in_flight_is_finished(client: TestClient) -> None:
    assert client.get("/stream").text == "ab"
    assert client.get("/stream").status_code == 503


def test_a_new_websocket_is_closed_while_draining(client: TestClient, engine: Engine) -> None:
    with client.websocket_connect("/socket"):
        pass
    engine.shutdown()
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/socket"):
        pass
    assert closed.value.code == 1012


def test_a_server_without_an_engine_starts() -> None:
    with TestClient(build(None)) as client:
        assert client.get("/fine").status_code == 200
