"""Calibration profiles: what they say, and every way a file can be wrong."""

import json
import os
from pathlib import Path

import pytest

from e3rl_core.errors import ProfileError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Defaults, Profile, fingerprint
from e3rl_core.threshold import Moments

PROFILE = Profile(model="llama-1", mean=(1.0, 2.0), std=(0.1, 0.2), segments=9, settings={"max_erasures": 2})


def saved(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "healing_profile.json"
    path.write_text(text)
    return path


def changed(**fields: object) -> str:
    return json.dumps({**PROFILE.model_dump(mode="json"), **fields})


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "healing_profile.json"
    PROFILE.save(path)
    assert Profile.load(path) == PROFILE


def test_the_last_entry_stands_for_all_later_segments() -> None:
    assert [PROFILE.prior(n) for n in (0, 1, 7)] == [Moments(1.0, 0.1), Moments(2.0, 0.2), Moments(2.0, 0.2)]


def test_its_settings_overlay_the_base_but_not_its_mode() -> None:
    policy = PROFILE.policy(HealingPolicy(mode="shadow"))
    assert (policy.mode, policy.max_erasures) == ("shadow", 2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"absent\.json: cannot be read \(No such file"):
        Profile.load(tmp_path / "absent.json")


@pytest.mark.parametrize("text", ["", "{", "not json", "[" * 100_000])
def test_what_is_not_json(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProfileError, match="is not JSON"):
        Profile.load(saved(tmp_path, text))


def test_what_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="is not JSON"):
        Profile.load(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "file: "),
        (changed(version=3), "version: "),
        (changed(mean=[]), "mean: "),
        (changed(mean=[1.0]), "mean has 1 entries, std has 2"),
        (changed(mean=[-1.0, 1.0]), "cannot be negative"),
        (changed(std=[float("nan"), 1.0]), "std.0: "),
        (changed(segments=-1), "segments: "),
        (changed(extra=1), "extra: "),
        (changed(settings={"max_erasures": "many"}), "profile.settings.max_erasures: "),
    ],
)
def test_bad_values_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ProfileError) as caught:
        Profile.load(saved(tmp_path, text))
    assert says in str(caught.value)
    assert "healing_profile.json" in str(caught.value)


def test_a_foreign_profile_is_refused() -> None:
    with pytest.raises(ProfileError, match="was learned on model llama-1, this model is qwen-2"):
        PROFILE.check_fits("qwen-2", "p.json")


@pytest.mark.parametrize("model", [None, "qwen-2"])
def test_a_profile_fits_its_own_model_and_one_without_a_name_fits_any(model: str | None) -> None:
    Profile(model=model, mean=(1.0,), std=(0.1,)).check_fits("qwen-2", "p.json")


#: As the first version was written, by training among others.
VERSION_1 = {
    "version": 1, "model": "llama-1", "mean": [1.0], "std": [0.5], "segments": 4,
    "settings": {"segment": {"unit": "tokens", "min_tokens": 8, "max_tokens": 8}, "max_erasures": 2},
    "provenance": {"steps": 3},
}  # fmt: skip


def test_a_profile_of_the_first_version_is_still_read(tmp_path: Path) -> None:
    profile = Profile.load(saved(tmp_path, json.dumps(VERSION_1)))
    assert (profile.prior(0), profile.statistics) == (Moments(1.0, 0.5), ())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"segment": {"tokens": 9}}, r"segment\.min_tokens 8, this deployment asks for 9"),
        ({"segment": {"unit": "line"}}, r"segment\.unit tokens, this deployment asks for line"),
        ({"preset": "paper"}, r"segment\.min_tokens 8, this deployment asks for 512"),
    ],
)
def test_a_deployment_that_cuts_otherwise_is_refused(tmp_path: Path, settings: dict[str, object], says: str) -> None:
    path = saved(tmp_path, json.dumps(VERSION_1))
    with pytest.raises(ProfileError, match=says):
        Defaults.resolve({"profile": str(path), **settings})


@pytest.mark.parametrize("learned", [{}, {"uncertainty": {"max": 0.0}}])
def test_a_deployment_that_scores_otherwise_is_refused_if_the_profile_says_how_it_was_learned(
    tmp_path: Path, learned: dict[str, object]
) -> None:
    path = saved(tmp_path, json.dumps({**VERSION_1, "settings": learned}))
    asked = {"profile": str(path), "uncertainty": {"max": 0.5}}
    if not learned:
        assert Defaults.resolve(asked).policy.uncertainty.max == 0.5
        return
    with pytest.raises(ProfileError, match=r"uncertainty\.max 0\.0, this deployment asks for 0\.5"):
        Defaults.resolve(asked)


def test_settings_that_do_not_change_what_u_means_are_a_deployments_own(tmp_path: Path) -> None:
    path = saved(tmp_path, json.dumps(VERSION_1))
    policy = Defaults.resolve({"profile": str(path), "threshold": {"k": 3.0}, "segment": {"tokens": 8}}).policy
    assert (policy.threshold.k, policy.max_erasures) == (3.0, 2)


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        PROFILE.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_profile_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    PROFILE.save(tmp_path / "profile.json")
    assert (tmp_path / "profile.json").stat().st_mode == saved(tmp_path, "").stat().st_mode


def test_fingerprints_tell_architectures_apart() -> None:
    config = {"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 2}
    assert fingerprint(config) == "llama-8-4-2-?"
    assert fingerprint({**config, "num_hidden_layers": 3}) != fingerprint(config)
