"""Settings: bounds, errors that name their field, and the order of the layers."""

import json

import pytest

from e3rl_core.errors import PolicyError
from e3rl_core.policy import GREEDY_RETRY_TEMPERATURE, HealingPolicy, Retry
from e3rl_core.profile import Defaults, Profile


def field_of(settings: object) -> str:
    with pytest.raises(PolicyError) as caught:
        HealingPolicy().updated(settings)
    return caught.value.field


def test_defaults_are_the_responsive_preset_but_for_the_erasure_cap() -> None:
    preset = HealingPolicy.from_preset("responsive")
    assert HealingPolicy().segment == preset.segment
    assert (preset.segment.min_tokens, preset.segment.max_tokens, preset.max_erasures) == (24, 96, 3)


def test_the_paper_preset_has_512_token_segments_and_five_erasures() -> None:
    policy = HealingPolicy.from_preset("paper")
    assert (policy.segment.unit, policy.segment.max_tokens, policy.max_erasures) == ("tokens", 512, 5)


@pytest.mark.parametrize("mode", ["off", "shadow", "on"])
def test_a_request_may_be_a_mode_or_the_mode_as_json(mode: str) -> None:
    base = HealingPolicy(mode="shadow")
    assert base.updated(mode) == base.updated(json.dumps(mode)) == base.updated({"mode": mode})


def test_a_request_may_be_an_object_as_json_text() -> None:
    assert HealingPolicy().updated('{"max_erasures": 2}').max_erasures == 2


def test_an_object_without_a_mode_turns_healing_on() -> None:
    assert HealingPolicy(mode="off").updated({"max_erasures": 1}).mode == "on"


def test_a_request_overlays_only_what_it_names() -> None:
    base = HealingPolicy.model_validate({"threshold": {"k": 3.0, "gamma": 2.0}, "max_erasures": 2})
    updated = base.updated({"threshold": {"gamma": 1.5}})
    assert (updated.threshold.k, updated.threshold.gamma, updated.max_erasures) == (3.0, 1.5, 2)


def test_a_named_preset_lies_under_the_settings_of_its_own_request() -> None:
    base = HealingPolicy.from_preset("responsive")
    updated = base.updated({"preset": "paper", "max_erasures": 1})
    assert (updated.preset, updated.segment.max_tokens, updated.max_erasures) == ("paper", 512, 1)


def test_tokens_is_shorthand_for_a_fixed_length() -> None:
    rule = HealingPolicy().updated({"segment": {"tokens": 8}}).segment
    assert (rule.unit, rule.min_tokens, rule.max_tokens) == ("tokens", 8, 8)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"gama": 2}, "healing.gama"),
        ({"threshold": {"gama": 2}}, "healing.threshold.gama"),
        ({"max_erasures": "3"}, "healing.max_erasures"),
        ({"max_erasures": True}, "healing.max_erasures"),
        ({"max_erasures": 2.5}, "healing.max_erasures"),
        ({"threshold": 3}, "healing.threshold"),
        ({"threshold": {"k": None}}, "healing.threshold.k"),
        ({"return_erased": "yes"}, "healing.return_erased"),
        ({"schedule": [1, "2"]}, "healing.schedule.1"),
        ({"mode": "loud"}, "healing.mode"),
        ({"preset": ["paper"]}, "healing.preset"),
        ({"segment": {"tokens": "eight"}}, "healing.segment.tokens"),
    ],
)
def test_unknown_and_mistyped_settings_are_named(settings: object, field: str) -> None:
    assert field_of(settings) == field


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"threshold": {"gamma": 1.0}}, "healing.threshold.gamma"),
        ({"threshold": {"k": float("nan")}}, "healing.threshold.k"),
        ({"threshold": {"floor": float("inf")}}, "healing.threshold.floor"),
        ({"threshold": {"prior_segments": 0}}, "healing.threshold.prior_segments"),
        ({"threshold": {"decay": 0}}, "healing.threshold.decay"),
        ({"uncertainty": {"smoothing": 1.0}}, "healing.uncertainty.smoothing"),
        ({"max_erasures": 65}, "healing.max_erasures"),
        ({"max_erasures": 10**400}, "healing.max_erasures"),
        ({"budget": {"erased_fraction": 1.5}}, "healing.budget.erased_fraction"),
        ({"budget": {"deadline_ms": -1}}, "healing.budget.deadline_ms"),
        ({"retry": {"temperature": 2.5}}, "healing.retry.temperature"),
        ({"segment": {"tokens": 0}}, "healing.segment.tokens"),
        ({"schedule": []}, "healing.schedule"),
    ],
)
def test_settings_out_of_range_are_named(settings: object, field: str) -> None:
    assert field_of(settings) == field


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"segment": {"min_tokens": 97}}, "min_tokens 97 is above max_tokens 96"),
        ({"segment": {"tokens": 8, "unit": "line"}}, "cannot be combined with unit 'line'"),
        ({"segment": {"tokens": 8, "min_tokens": 4}}, "cannot be combined with min_tokens 4"),
        ({"schedule": [-1]}, "negative"),
    ],
)
def test_contradictions_say_what_contradicts_what(settings: object, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        HealingPolicy().updated(settings)


@pytest.mark.parametrize("request_", [None, 3, ["on"], True, "loud", "{", "3", "null", "[" * 100_000])
def test_what_is_no_request_at_all_is_refused(request_: object) -> None:
    assert field_of(request_) == "healing"


def test_the_error_field_starts_where_the_caller_says() -> None:
    with pytest.raises(PolicyError, match=r"^vllm_xargs\.healing\.max_erasures: "):
        HealingPolicy().updated({"max_erasures": -1}, where="vllm_xargs.healing")


def test_a_policy_survives_json() -> None:
    policy = HealingPolicy().updated({"schedule": [1, 0], "budget": {"erased_tokens": 9}})
    assert HealingPolicy.model_validate_json(policy.model_dump_json()) == policy
    assert HealingPolicy().updated(policy.model_dump(mode="json")) == policy


@pytest.mark.parametrize(
    ("setting", "request_temperature", "expected"),
    [(None, 0.0, GREEDY_RETRY_TEMPERATURE), (None, 0.9, 0.9), (0.0, 0.9, 0.0), (1.2, 0.0, 1.2)],
)
def test_retry_temperature(setting: float | None, request_temperature: float, expected: float) -> None:
    assert Retry(temperature=setting).temperature_for(request_temperature) == expected


def test_a_deployment_without_a_profile_only_watches(tmp_path) -> None:
    defaults = Defaults.resolve({})
    assert (defaults.policy.mode, defaults.policy.max_erasures, defaults.profile) == ("shadow", 3, None)


def test_layers_preset_below_profile_below_explicit_settings(tmp_path) -> None:
    path = tmp_path / "profile.json"
    Profile(mean=(1.0,), std=(0.2,), settings={"max_erasures": 4, "threshold": {"k": 2.5}}).save(path)
    policy = Defaults.resolve({"profile": str(path), "preset": "paper", "threshold": {"gamma": 1.5}}).policy
    assert (policy.mode, policy.segment.max_tokens, policy.max_erasures) == ("on", 512, 4)
    assert (policy.threshold.k, policy.threshold.gamma) == (2.5, 1.5)
    request = policy.updated({"max_erasures": 1, "threshold": {"k": 0.5}})
    assert (request.max_erasures, request.threshold.k, request.threshold.gamma) == (1, 0.5, 1.5)


def test_an_explicit_mode_wins_over_the_profiles_presence(tmp_path) -> None:
    path = tmp_path / "profile.json"
    Profile(mean=(1.0,), std=(0.2,)).save(path)
    assert Defaults.resolve({"profile": path, "mode": "off"}).policy.mode == "off"


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"profile": 5}, "healing.profile"), ({"preset": "fast"}, "healing.preset"), ({"k": 1}, "healing.k")],
)
def test_a_deployments_wrong_settings_are_named(settings: dict[str, object], field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Defaults.resolve(settings)
    assert caught.value.field == field
