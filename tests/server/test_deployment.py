"""How flags, the user's JSON and the model's profile combine into one deployment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from e3rl_core.errors import PolicyError, ProfileError
from e3rl_core.profile import Profile
from e3rl_server.deployment import FlagError, Healing, add_flags, decide

CONFIG = {"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "healing_profile.json"
    Profile(mean=(1.0,), std=(0.5,), model="llama-9-8-1-1").save(path)
    return path


def decided(
    *flags: str, beside: Path | None = None, model: dict[str, Any] | None = CONFIG, **namespace: Any
) -> Healing:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    defaults = argparse.Namespace(**{"additional_config": {}, "scheduler_cls": None} | namespace)
    return decide(parser.parse_args(flags, defaults), model, beside)


def test_shadow_without_a_profile() -> None:
    healing = decided()
    assert healing.mode == "shadow"
    assert "no calibration profile" in healing.reason


def test_on_with_a_profile_beside_the_model(profile: Path) -> None:
    healing = decided(beside=profile)
    assert (healing.mode, healing.profile) == ("on", profile)
    assert healing.settings["profile"] == str(profile)


def test_on_with_a_given_profile(profile: Path) -> None:
    assert decided("--profile", str(profile)).mode == "on"


def test_a_flag_beats_the_profile(profile: Path) -> None:
    assert decided("--healing", "shadow", beside=profile).mode == "shadow"
    assert decided("--healing", "off", beside=profile).is_off


def test_the_users_json_beats_the_default_and_a_flag_beats_it() -> None:
    users = {"healing": {"mode": "on", "max_erasures": 2}}
    healing = decided(additional_config=users)
    assert healing.settings == {"mode": "on", "max_erasures": 2}
    assert decided("--healing", "shadow", additional_config=users).mode == "shadow"


def test_our_settings_lie_over_the_users(profile: Path) -> None:
    healing = decided("--healing", "on", "--healing-log", "/logs", "--healing-log-text")
    assert healing.additional_config({"theirs": 1}) == {
        "theirs": 1,
        "healing": {"mode": "on"},
        "healing_log": {"dir": "/logs", "text": True},
    }


def test_off_adds_nothing() -> None:
    assert decided("--healing", "off").additional_config({"theirs": 1}) == {"theirs": 1}


def test_a_foreign_profile_is_refused(profile: Path) -> None:
    with pytest.raises(ProfileError, match="was learned on model llama-9-8-1-1"):
        decided(beside=profile, model={**CONFIG, "vocab_size": 10})


def test_a_preset_of_other_segments_than_the_profiles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "healing_profile.json"
    Profile(mean=(1.0,), std=(0.5,), settings={"segment": {"tokens": 16}}).save(path)
    with pytest.raises(ProfileError, match=r"was learned with segment\.min_tokens 16, this deployment asks for 512"):
        decided("--healing-preset", "paper", beside=path)


@pytest.mark.parametrize("healing", [{"max_erasures": -1}, {"nonsense": 1}, [1]])
def test_wrong_settings_are_refused(healing: Any) -> None:
    with pytest.raises(PolicyError):
        decided(additional_config={"healing": healing})


@pytest.mark.parametrize("flags", [("--profile", "x"), ("--healing-preset", "paper"), ("--healing-log", "x")])
def test_healing_flags_without_healing_are_refused(flags: tuple[str, ...]) -> None:
    with pytest.raises(FlagError, match=f"{flags[0]} has no effect with --healing off"):
        decided("--healing", "off", *flags)


def test_log_text_needs_a_log() -> None:
    with pytest.raises(FlagError, match="--healing-log-text needs --healing-log"):
        decided("--healing-log-text")


def test_a_second_scheduler_is_refused_unless_off() -> None:
    with pytest.raises(FlagError, match="--scheduler-cls"):
        decided(scheduler_cls="theirs.Scheduler")
    assert decided("--healing", "off", scheduler_cls="theirs.Scheduler").is_off
