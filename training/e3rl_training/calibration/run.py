"""A calibration in order: where it goes, the settings, the prompts, the answers, the profile, the grades."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from e3rl_core.embedded.model import sha256
from e3rl_core.errors import CalibrationError
from e3rl_core.policy import HealingPolicy, PresetName
from e3rl_core.profile import PROFILE_NAME, Profile
from e3rl_training import export, models
from e3rl_training.calibration import measures
from e3rl_training.calibration.sampling import Answer, sample
from e3rl_training.evaluation.grading import Grader
from e3rl_training.evaluation.problems import Asked, load_problems
from e3rl_training.recipe import ModelSpec


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for."""

    data: str
    columns: dict[str, str]
    limit: int
    instruction: str
    temperature: float
    max_tokens: int
    erase_rate: float | None
    """Share of first draws; None: the k that there is, and what it erases."""
    preset: PresetName | None
    """None: the settings of the profile beside the model, or the default ones."""
    seed: int


@dataclass(frozen=True)
class Calibration:
    profile: Profile
    path: Path
    report: dict[str, Any]


def calibrate(model: str | None, settings: Settings, output: Path | None) -> Calibration:
    """Measure a model and write its profile.

    Raises:
        CalibrationError, DataError, ModelError, ProfileError: in one sentence.
    """
    folder = models.locate(ModelSpec(name=model or models.EMBEDDED), 0)
    path = _target(folder, output)
    policy = _policy(folder, settings.preset)
    config, tokenizer = _described(folder)
    problems = load_problems(
        settings.data,
        columns=settings.columns,
        limit=settings.limit,
        seed=settings.seed,
        instruction=settings.instruction,
        chat=bool(tokenizer.chat_template),
    )
    drawn = sample(
        folder,
        [models.prompt_ids(tokenizer, one.prompt) for one in problems.asked],
        policy,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    scores = [answer.scores for answer in drawn.answers]
    measured = measures.measure(scores, policy, settings.erase_rate)
    threshold = measures.thresholds(measured)
    provenance = export.provenance(
        command="e3rl calibrate",
        model=Path(model).name if model else models.EMBEDDED,
        model_sha256=_weights_hash(folder),
        data=problems.title,
        data_sha256=problems.digest,
        prompts=len(problems.asked),
        erased=threshold["erased"],
        **drawn.provenance,
    )
    profile = export.profile_of(measured.calibrator, measured.policy, config, provenance)
    assert profile is not None, "it has draws"
    profile = profile.model_copy(update={"statistics": measured.statistics})
    profile.save(path)
    report = {
        "answers": len(drawn.answers),
        "segments": profile.segments,
        "truncated": sum(answer.truncated for answer in drawn.answers),
        "temperature": settings.temperature,
        "by_segment": [one.model_dump() for one in measured.statistics],
        "threshold": threshold,
        "discrimination": _graded(problems.asked, drawn.answers, measured),
        "provenance": provenance,
    }
    return Calibration(profile, path, report)


def _target(folder: str, output: Path | None) -> Path:
    """Where the profile goes, found out before minutes are spent."""
    if output is None and not Path(folder).is_dir():
        raise CalibrationError(f"model {folder} is not a folder to leave a profile in: name a file with -o FILE")
    path = output if output is not None else Path(folder) / PROFILE_NAME
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise CalibrationError(f"-o {path}: cannot be written; name a file in a folder that exists")
    return path


def _policy(folder: str, preset: PresetName | None) -> HealingPolicy:
    """Segments as the model is served: by the preset, or as the profile that it has, a trained one say, cuts them."""
    policy = HealingPolicy.from_preset(preset or "responsive", "shadow")
    beside = Path(folder) / PROFILE_NAME
    return Profile.load(beside).policy(policy) if preset is None and beside.is_file() else policy


def _described(folder: str) -> tuple[dict[str, Any], Any]:
    try:
        return AutoConfig.from_pretrained(folder).to_dict(), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CalibrationError(
            f"model {folder} cannot be loaded ({reason}); name a model folder, or one on the Hub within reach"
        ) from None


def _graded(asked: Sequence[Asked], answers: Sequence[Answer], measured: measures.Measured) -> dict[str, Any] | None:
    """How well U tells wrong answers, if it is known which are wrong."""
    if not all(one.answer for one in asked):
        return None
    grader = Grader()
    try:
        grades = [grader.grade(one, answer.text) for one, answer in zip(asked, answers, strict=True)]
    finally:
        grader.close()
    scores = [answer.scores for answer in answers]
    found = measures.discrimination(scores, [grade.right for grade in grades], measured)
    return {**found, "ungradable": sum(not grade.gradable for grade in grades)}


def _weights_hash(folder: str) -> str | None:
    """Of a folder's weights by name and content; None of a model on the Hub, which has its revision."""
    files = sorted([*Path(folder).glob("*.safetensors"), *Path(folder).glob("*.bin")])
    if not files:
        return None
    return hashlib.sha256(json.dumps([(file.name, sha256(file)) for file in files]).encode()).hexdigest()
