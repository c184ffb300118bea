"""Probes and version: what an orchestrator asks, in every mode, healing on or off.

    GET /health/live     200 while the process answers at all: restart it when this fails
    GET /health/ready    200 while the engine is healthy, 503 when it is not or the server drains: route by this
    GET /health          vLLM's own, the same as ready
    GET /version         vLLM's own with our version and the healing policy added (untouched with healing off)

While draining, `limits.Limits` answers 503 to all but `/health/live` before these are reached.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from e3rl_core import __version__
from e3rl_core.profile import Defaults
from e3rl_server.banner import announce_when_ready
from e3rl_server.deployment import SETTINGS_KEY

#: Name of the deployment's policy on the app's state.
_POLICY = "e3rl_policy"

router = APIRouter(tags=["health"])
version_router = APIRouter(tags=["health"])


@router.get("/health/live")
async def live() -> JSONResponse:
    """The process answers."""
    return JSONResponse({"status": "alive"})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """The engine is healthy and takes requests."""
    from vllm.v1.engine.exceptions import EngineDeadError

    client = request.app.state.engine_client
    try:
        if client is not None:  # a render-only server has no engine, and is ready
            await client.check_health()
    except EngineDeadError:
        return JSONResponse({"status": "engine dead"}, status_code=503)
    return JSONResponse({"status": "ready"})


@version_router.get("/version")
async def version(request: Request) -> JSONResponse:
    """The engine's version under vLLM's own key; ours, and what a request that says nothing runs under, beside it."""
    from vllm.version import __version__ as vllm_version

    policy = getattr(request.app.state, _POLICY)
    healing = {"mode": policy.mode, "preset": policy.preset, "policy": policy.model_dump(mode="json")}
    return JSONResponse({"version": vllm_version, "e3rl": __version__, "healing": healing})


def settings_of(args: Namespace) -> dict[str, Any]:
    """The deployment's healing settings; empty with healing off."""
    additional = getattr(args, "additional_config", None)
    settings = additional.get(SETTINGS_KEY) if isinstance(additional, dict) else None
    return settings if isinstance(settings, dict) else {}


def attach(app: FastAPI) -> None:
    """Add the routes to a server that is being built."""
    app.include_router(router)
    settings = settings_of(app.state.args)
    if settings:
        setattr(app.state, _POLICY, Defaults.resolve(settings).policy)
        app.include_router(version_router)


class HealthEndpoints:
    """The vLLM endpoint plugin ``e3rl_health``."""

    name = "e3rl_health"
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Part of vLLM's plugin protocol: called while the server is built."""
        attach(app)
        announce_when_ready(app)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Part of vLLM's plugin protocol; the probes read what is already in `state`."""
