from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from e3rl_core.engines.vllm_scheduler import HealingScheduler
from e3rl_core.errors import PolicyError
from e3rl_server.requests import Deployment, HealingChatRequest, HealingCompletionRequest, HealingResponsesRequest


def deployment(scheduler: type = HealingScheduler, **settings: Any) -> Deployment:
    config = SimpleNamespace(
        additional_config={"healing": {"mode": "on", **settings}},
        scheduler_config=SimpleNamespace(get_scheduler_cls=lambda: scheduler),
        structured_outputs_config=SimpleNamespace(reasoning_parser=""),
    )
    return Deployment.of(config)


def chat(**fields: Any) -> HealingChatRequest:
    return HealingChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], **fields})


def sent(request: Any) -> Any:
    value = request.vllm_xargs["healing"]
    return json.loads(value) if value.startswith("{") else value


def test_a_silent_request_runs_under_the_defaults_and_is_not_touched() -> None:
    request = chat()
    assert deployment(mode="shadow").admit(request).mode == "shadow"
    assert request.vllm_xargs is None


@pytest.mark.parametrize("wanted", ["off", "shadow", "on"])
def test_a_mode_reaches_the_scheduler(wanted: str) -> None:
    request = chat(healing=wanted, vllm_xargs={"other": 1})
    assert deployment().admit(request).mode == wanted
    assert request.vllm_xargs == {"other": 1, "healing": wanted}


def test_settings_reach_the_scheduler_as_the_client_wrote_them() -> None:
    request = chat(healing={"segment": {"tokens": 8}})
    policy = deployment().admit(request)
    assert (policy.mode, policy.segment.max_tokens) == ("on", 8)
    assert sent(request) == {"segment": {"tokens": 8}}


def test_the_field_works_on_every_endpoint() -> None:
    completion = HealingCompletionRequest.model_validate({"prompt": "hi", "healing": "shadow"})
    response = HealingResponsesRequest.model_validate({"input": "hi", "healing": "shadow"})
    assert deployment().admit(completion).mode == deployment().admit(response).mode == "shadow"


@pytest.mark.parametrize(
    ("healing", "field"),
    [
        (3, "healing"),
        ([], "healing"),
        ("maybe", "healing"),
        ("{", "healing"),
        ({"nope": 1}, "healing.nope"),
        ({"threshold": {"gamma": 0.5}}, "healing.threshold.gamma"),
        ({"threshold": {"gamma": "2"}}, "healing.threshold.gamma"),
        ({"segment": {"tokens": 0}}, "healing.segment.tokens"),
        ({"max_erasures": True}, "healing.max_erasures"),
        ({"uncertainty": {"signal": "entropy"}}, "healing.uncertainty.signal"),
        ({"scope": "reasoning"}, "healing.scope"),
        ({"stream": "live"}, "healing.stream"),
    ],
)
def test_wrong_settings_are_refused_by_name(healing: object, field: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        deployment().admit(chat(healing=healing))
    assert refusal.value.field == field


@pytest.mark.parametrize("healing", ["on", "shadow", {"keep": "best"}])
def test_beam_search_is_refused_only_where_healing_is_asked_for(healing: object) -> None:
    with pytest.raises(PolicyError, match="use_beam_search"):
        deployment().admit(chat(healing=healing, use_beam_search=True))
    assert deployment().admit(chat(healing="off", use_beam_search=True)).mode == "off"
    assert deployment().admit(chat(use_beam_search=True)).mode == "off"


def test_a_server_without_healing_says_so() -> None:
    stock = deployment(AsyncScheduler)
    with pytest.raises(PolicyError, match="--healing on") as refusal:
        stock.admit(chat(healing="on"))
    assert refusal.value.field == "healing"
    assert stock.admit(chat(healing="off")).mode == stock.admit(chat()).mode == "off"


def test_live_events_need_a_stream() -> None:
    live = {"stream": "live"}
    assert deployment().admit(chat(healing=live, stream=True)).stream == "live"
    background = {"input": "hi", "stream": True, "background": True, "healing": live}
    with pytest.raises(PolicyError, match="background"):
        deployment().admit(HealingResponsesRequest.model_validate(background))


def test_a_live_default_is_committed_where_nothing_streams() -> None:
    request = chat(healing={"keep": "best"})
    assert deployment(stream="live").admit(request).stream == "committed"
    assert sent(request) == {"mode": "on", "keep": "best", "stream": "committed"}


def test_two_places_must_agree() -> None:
    with pytest.raises(PolicyError) as refusal:
        deployment().admit(chat(healing="on", vllm_xargs={"healing": "off"}))
    assert refusal.value.field == "vllm_xargs.healing"
    assert deployment().admit(chat(vllm_xargs={"healing": '{"mode": "shadow"}'})).mode == "shadow"
