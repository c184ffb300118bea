"""Probes and version, on an app with a stand-in engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from e3rl_core import __version__
from e3rl_core.policy import HealingPolicy
from e3rl_server.banner import ATTRIBUTE
from e3rl_server.health import HealthEndpoints

EngineDeadError = pytest.importorskip("vllm.v1.engine.exceptions").EngineDeadError


class Engine:
    dead = False

    async def check_health(self) -> None:
        if self.dead:
            raise EngineDeadError


def build(engine: Engine | None, **args: Any) -> FastAPI:
    app = FastAPI()
    app.state.engine_client = engine
    app.state.args = SimpleNamespace(**args)
    HealthEndpoints().attach_router(app)
    return app


def test_a_healthy_engine_is_ready() -> None:
    client = TestClient(build(Engine()))
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200


def test_a_dead_engine_is_alive_but_not_ready() -> None:
    engine = Engine()
    engine.dead = True
    client = TestClient(build(engine))
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503


def test_no_engine_is_ready() -> None:
    assert TestClient(build(None)).get("/health/ready").status_code == 200


def test_the_version_tells_the_policy() -> None:
    client = TestClient(build(None, additional_config={"healing": {"mode": "shadow", "preset": "paper"}}))
    answer = client.get("/version").json()
    assert answer["e3rl"] == __version__
    assert answer["version"].startswith("0.32")
    assert (answer["healing"]["mode"], answer["healing"]["preset"]) == ("shadow", "paper")
    assert HealingPolicy.model_validate(answer["healing"]["policy"]) == HealingPolicy.from_preset("paper", "shadow")


def test_with_healing_off_the_version_is_vllms() -> None:
    assert TestClient(build(None, additional_config={})).get("/version").status_code == 404


def test_the_banner_is_printed_when_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(build(None, **{ATTRIBUTE: "ready, steady"})):
        assert "ready, steady" in capsys.readouterr().err
