"""The OpenAI endpoints with healing, as a vLLM endpoint plugin.

A route here checks the request's `healing` field, hands the request to vLLM's own route, and completes the response
that comes out: vLLM's request handling, parsers, headers, cancellation and errors are untouched. Requests with mode
``off`` get that response as it is.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import State
from starlette.responses import Response
from vllm.entrypoints.openai.chat_completion import api_router as stock_chat
from vllm.entrypoints.openai.completion import api_router as stock_completion
from vllm.entrypoints.openai.responses import api_router as stock_responses
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import validate_json_request

from e3rl_core.engines.vllm_compat import add_output_tap
from e3rl_core.errors import PolicyError
from e3rl_server.exchange import STOCK, Exchange, Exchanges, HealingClient, ReasoningWatch, current_exchange
from e3rl_server.metrics import Metrics
from e3rl_server.oplog import LogSettings, OpLog
from e3rl_server.requests import Deployment, HealingChatRequest, HealingCompletionRequest, HealingResponsesRequest
from e3rl_server.responses import USAGE_DETAILS, EventWeaver, within
from e3rl_server.streaming import ChunkWeaver, Weaver, committed_stream, complete_body, live_stream

#: Name of the state that the routes find on the app.
STATE = "e3rl"


@dataclass
class Service:
    """What the routes of one API process share."""

    deployment: Deployment
    metrics: Metrics
    exchanges: Exchanges
    log: OpLog | None


@dataclass(frozen=True)
class Endpoint:
    """One of vLLM's routes and how healing shows in what it sends."""

    stock: Callable[[Any, Request], Awaitable[Any]]
    serving: str
    """The serving object's name on the app's state."""
    weaver: Callable[[Exchange, str], Weaver]
    id_suffix: str = ""
    details: str = "completion_tokens_details"


CHAT = Endpoint(
    stock_chat.create_chat_completion,
    "openai_serving_chat",
    lambda exchange, model: ChunkWeaver(exchange, "chat.completion.chunk", model),
)
COMPLETION = Endpoint(
    stock_completion.create_completion,
    "openai_serving_completion",
    lambda exchange, model: ChunkWeaver(exchange, "text_completion", model),
    id_suffix="-",
)
RESPONSES = Endpoint(
    stock_responses.create_responses,
    "openai_serving_responses",
    lambda exchange, _: EventWeaver(exchange),
    id_suffix="_",
    details=USAGE_DETAILS,
)

router = APIRouter()
_route: dict[str, Any] = {
    "dependencies": [Depends(validate_json_request)],
    "response_model": None,
    "responses": {
        HTTPStatus.OK.value: {"content": {"text/event-stream": {}}},
        HTTPStatus.BAD_REQUEST.value: {"model": ErrorResponse},
        HTTPStatus.NOT_FOUND.value: {"model": ErrorResponse},
        HTTPStatus.INTERNAL_SERVER_ERROR.value: {"model": ErrorResponse},
    },
}


@router.post("/v1/chat/completions", **_route)
async def create_chat_completion(request: HealingChatRequest, raw_request: Request) -> Any:
    """Chat completion, with the `healing` field."""
    return await serve(CHAT, request, raw_request)


@router.post("/v1/completions", **_route)
async def create_completion(request: HealingCompletionRequest, raw_request: Request) -> Any:
    """Completion, with the `healing` field."""
    return await serve(COMPLETION, request, raw_request)


@router.post("/v1/responses", **_route)
async def create_responses(request: HealingResponsesRequest, raw_request: Request) -> Any:
    """Response, with the `healing` field."""
    return await serve(RESPONSES, request, raw_request)


async def serve(endpoint: Endpoint, request: Any, raw_request: Request) -> Any:
    """Check, have vLLM answer, complete the answer."""
    service: Service = getattr(raw_request.app.state, STATE)
    try:
        policy = service.deployment.admit(request)
    except PolicyError as error:
        return _refusal(error)
    service.metrics.requests.labels(policy.mode).inc()
    if policy.mode == "off":
        return await _without_healing(endpoint, request, raw_request)
    if getattr(request, "background", False):  # it outlives this exchange, and is fetched from vLLM's own store
        return await endpoint.stock(request, raw_request)
    model = _model_name(getattr(raw_request.app.state, endpoint.serving), request)
    exchange = Exchange(
        policy,
        n=getattr(request, "n", None) or 1,
        streamed=bool(request.stream),
        id_suffix=endpoint.id_suffix,
        log=service.log.open(model, policy.model_dump(mode="json")) if service.log is not None else None,
    )
    token = current_exchange.set(exchange)
    try:
        response = await endpoint.stock(request, raw_request)
    except BaseException:
        exchange.close()
        raise
    finally:
        current_exchange.reset(token)
    return _completed(endpoint, exchange, response, model)


async def _without_healing(endpoint: Endpoint, request: Any, raw_request: Request) -> Any:
    """What vLLM answers. Beam search makes engine requests of its own, which do not carry the request's settings."""
    token = current_exchange.set(STOCK if getattr(request, "use_beam_search", False) else None)
    try:
        return await endpoint.stock(request, raw_request)
    finally:
        current_exchange.reset(token)


def _completed(endpoint: Endpoint, exchange: Exchange, response: Any, model: str) -> Any:
    if isinstance(response, StreamingResponse):
        chunks: AsyncGenerator[str, None] = response.body_iterator  # type: ignore[assignment]
        if endpoint is RESPONSES:
            chunks = within(exchange, chunks)
        stream = live_stream if exchange.live else committed_stream
        response.body_iterator = stream(chunks, exchange, endpoint.weaver(exchange, model))
        return response
    if isinstance(response, JSONResponse) and response.status_code == HTTPStatus.OK:
        body = json.loads(bytes(response.body))
        complete_body(body, exchange, endpoint.details)
        _replace_body(response, body)
    exchange.close()
    return response


def _replace_body(response: JSONResponse, body: dict[str, Any]) -> None:
    response.body = response.render(body)
    response.headers["content-length"] = str(len(response.body))


def _refusal(error: PolicyError) -> Response:
    status = HTTPStatus.BAD_REQUEST
    info = ErrorInfo(message=str(error), type="BadRequestError", param=error.field, code=status.value)
    return JSONResponse(ErrorResponse(error=info).model_dump(), status_code=status)


def _model_name(serving: Any, request: Any) -> str:
    """The name that vLLM puts into the answer; an unknown model is refused by vLLM later."""
    if serving is None:
        return request.model or ""
    return str(serving.models.model_name(serving.models.lora_requests.get(request.model)))


def _reasoning_watch(config: Any, tokenizer: Any) -> ReasoningWatch:
    """Tells, from the arguments of a generation, how to see that its reasoning is over."""
    name = config.structured_outputs_config.reasoning_parser
    if not name:
        return lambda _: None
    from vllm.reasoning import ReasoningParserManager

    parser_class = ReasoningParserManager.get_reasoning_parser(name)

    def watch(arguments: dict[str, Any]) -> Callable[[Any], bool] | None:
        settings = arguments.get("reasoning_parser_kwargs")
        if settings is None or arguments.get("reasoning_ended"):
            return None
        over: Callable[[Any], bool] = parser_class(tokenizer, **settings).is_reasoning_end
        return over

    return watch


class HealingEndpoints:
    """The plugin; `vllm.endpoint_plugins` names it ``e3rl_api``."""

    name = "e3rl_api"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Put the routes in the place of vLLM's."""
        app.include_router(router)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """Connect to the engine's output loop and to vLLM's serving objects.

        Raises:
            PolicyError, ProfileError, ValidationError, OSError: the deployment's healing or log settings are wrong.
        """
        config = state.vllm_config
        tokenizer = engine_client.renderer.tokenizer
        deployment = Deployment.of(config, tokenizer)
        metrics = Metrics()
        exchanges = Exchanges(metrics, _reasoning_watch(config, tokenizer))
        additional = config.additional_config if isinstance(config.additional_config, dict) else {}
        log = additional.get("healing_log")
        setattr(
            state,
            STATE,
            Service(deployment, metrics, exchanges, OpLog(LogSettings.model_validate(log)) if log else None),
        )
        if not deployment.heals:
            return
        add_output_tap(exchanges.tap)
        for endpoint in (CHAT, COMPLETION, RESPONSES):
            serving = getattr(state, endpoint.serving, None)
            if serving is not None:
                serving.engine_client = HealingClient(serving.engine_client, exchanges)
