"""A whole calibration of a small random model: what it writes, that it repeats, what is refused before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from e3rl_core.errors import CalibrationError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import PROFILE_NAME, Profile, fingerprint
from e3rl_training.calibration import run
from tests.core.engines.vllm_engine import tiny_llama


def settings(**changes: Any) -> run.Settings:
    defaults: dict[str, Any] = {
        "data": "problems.jsonl", "columns": {}, "limit": 200, "instruction": "", "temperature": 1.0, "max_tokens": 40,
        "erase_rate": None, "preset": None, "seed": 3,
    }  # fmt: skip
    return run.Settings(**{**defaults, **changes})


@pytest.fixture
def model(tmp_path: Path) -> str:
    from e3rl_core.embedded.model import embedded_model

    folder = tiny_llama(tmp_path / "model", embedded_model())
    Profile(mean=(1.0,), std=(1.0,), settings={"segment": {"tokens": 8}, "max_erasures": 2}).save(folder / PROFILE_NAME)
    return str(folder)


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n} and {n}?", "answer": f"{2 * n}"}) + "\n" for n in range(6)))
    return str(path)


@pytest.mark.engine
def test_a_profile_for_the_model_it_was_measured_on(model: str, data: str, tmp_path: Path) -> None:
    wanted = settings(data=data, erase_rate=0.2)
    first = run.calibrate(model, wanted, tmp_path / "first.json")
    profile = Profile.load(first.path)
    profile.check_fits(fingerprint(json.loads((Path(model) / "config.json").read_text())), first.path)
    policy = profile.policy(HealingPolicy())
    assert (policy.segment.max_tokens, policy.max_erasures) == (8, 2), "as the profile that was there cuts"
    assert profile.segments == sum(one.draws for one in profile.statistics) == first.report["segments"]
    assert profile.statistics[0].draws == 6
    assert 0.1 < first.report["threshold"]["erased"] <= 0.2
    assert policy.threshold.k == first.report["threshold"]["k"]
    assert first.report["discrimination"]["graded"] == 6
    assert profile.provenance["temperature"] == 1.0
    assert len(profile.provenance["model_sha256"]) == len(profile.provenance["data_sha256"]) == 64

    again = run.calibrate(model, wanted, tmp_path / "second.json").profile
    assert again.model_dump(exclude={"provenance"}) == profile.model_dump(exclude={"provenance"})


def test_a_model_on_the_hub_leaves_its_profile_nowhere(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"somebody/model is not a folder.*-o FILE"):
        run.calibrate("somebody/model", settings(), None)


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"-o .*nowhere.*cannot be written"):
        run.calibrate("somebody/model", settings(), tmp_path / "nowhere" / "profile.json")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be loaded"):
        run.calibrate(str(tmp_path), settings(), None)
