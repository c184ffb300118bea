"""A run from recipe to served checkpoint: what it leaves, how it goes on, and what it refuses before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from e3rl_core.errors import CheckpointError, DataError, RecipeError
from e3rl_core.profile import PROFILE_NAME, Profile, fingerprint
from e3rl_training import callbacks, models, report, run
from e3rl_training.recipe import SHIPPED, Recipe
from e3rl_training.trainer import UNFINISHED


@pytest.fixture
def recipe_data(model: Any, tokenizer: Any, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "start"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "model": {"name": str(folder), "dtype": "float32"},
        "data": {"name": "modchain", "steps": 4, "limit": 64},
        "rewards": [{"name": "format", "pattern": "[0-4].*"}],
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 24,
            "learning_rate": "1e-3",
            "report_to": "none",
            "save_steps": 1,
            "healing": {"segment": {"tokens": 6}, "schedule": [1, 0]},
        },
        "output": str(tmp_path / "run"),
    }


def load(data: dict[str, Any], tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    return Recipe.load(path, overrides)


def test_what_a_run_leaves(recipe_data: dict[str, Any], tmp_path: Path) -> None:
    outcome = run.train(load(recipe_data, tmp_path), command="e3rl train recipe.yaml")
    assert (outcome.finished, outcome.steps) == (True, 3)
    final = outcome.folder / run.FINAL
    trained = AutoModelForCausalLM.from_pretrained(final)
    assert AutoTokenizer.from_pretrained(final).eos_token == "<eos>"
    profile = Profile.load(final / PROFILE_NAME)
    profile.check_fits(fingerprint(trained.config.to_dict()), final)
    assert profile.settings["segment"]["max_tokens"] == 6
    assert (profile.provenance["steps"], profile.provenance["temperature"]) == (3, 1.0)
    assert "e3rl train recipe.yaml" in (final / "README.md").read_text("utf-8")
    written = json.loads((outcome.folder / "report.json").read_text("utf-8"))
    assert written["steps"] == 3
    assert 0 < written["last"]["e3rl/erased_share"] < 1
    assert (outcome.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in final.iterdir())
    assert not (outcome.folder / UNFINISHED).exists()
    assert [record["step"] for record in callbacks.read(outcome.folder / run.LOG) if "reward" in record] == [1, 2, 3]


def test_an_interrupted_run_goes_on(recipe_data: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    class StopAfterTwo(callbacks.Interrupt):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.asked = state.global_step == 2
            super().on_step_end(args, state, control, **more)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "Interrupt", StopAfterTwo)
        outcome = run.train(load(recipe_data, tmp_path, "training.save_strategy=no"))
    assert (outcome.finished, outcome.steps) == (False, 2)
    assert not (outcome.folder / run.FINAL).exists()
    with pytest.raises(CheckpointError, match="say --resume"):
        run.train(load(recipe_data, tmp_path))
    assert run.train(load(recipe_data, tmp_path), resume=True).finished


def test_adapters_are_merged_into_what_is_exported(recipe_data: dict[str, Any], tmp_path: Path) -> None:
    recipe_data["model"]["lora"] = {"r": 2, "alpha": 4}
    before = AutoModelForCausalLM.from_pretrained(recipe_data["model"]["name"]).state_dict()
    outcome = run.train(load(recipe_data, tmp_path, "training.learning_rate=0.01"))
    after = AutoModelForCausalLM.from_pretrained(outcome.folder / run.FINAL).state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed
    assert all("proj" in name for name in changed)


def test_nothing_to_resume_from(recipe_data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume: there is no checkpoint"):
        run.train(load(recipe_data, tmp_path), resume=True)


def test_a_checkpoint_of_another_architecture(recipe_data: dict[str, Any], tmp_path: Path) -> None:
    outcome = run.train(load(recipe_data, tmp_path, "training.max_steps=1"))
    config = outcome.folder / "checkpoint-1" / "config.json"
    config.write_text(config.read_text("utf-8").replace('"hidden_size": 32', '"hidden_size": 64'), "utf-8")
    with pytest.raises(CheckpointError, match="is of model llama-18-64"):
        run.train(load(recipe_data, tmp_path), resume=True)


def test_difficulty_leaves_out_what_teaches_nothing(recipe_data: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    recipe_data["difficulty"] = {"samples": 4, "low": 0.2, "high": 0.8}
    assert run.train(load(recipe_data, tmp_path, "training.max_steps=1")).finished
    assert "of 64 problems stay" in capsys.readouterr().err
    recipe_data["rewards"] = [{"name": "format", "pattern": ".*"}]  # always right
    with pytest.raises(DataError, match="no problem has a solve rate"):
        run.train(load({**recipe_data, "output": str(tmp_path / "other")}, tmp_path))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.loss_type=grpo", "training.loss_type: 'grpo' averages over rows"),
        ("training.plain_fraction=2", "training.plain_fraction: is 2"),
        ("training.healing.threshold.k=-99", "training.healing.threshold.k"),
        ("training.healing.keep=best", "training.healing.keep: 'best' selects"),
        ("training.healing.erase_from=onset", "training.healing.erase_from: 'onset' lets what follows cut a segment"),
        ("training.credit.mode=magic", "training.credit.mode"),
        ("training.num_generations=3", "training: .*divisible"),
        ("model.name=/nowhere/at/all", "model.name: '/nowhere/at/all' cannot be loaded"),
    ],
)
def test_refused_before_it_begins(
    override: str, says: str, recipe_data: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(run, "E3RLTrainer", None)
    with pytest.raises(RecipeError, match=says):
        run.train(load(recipe_data, tmp_path, override))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*.yaml")))
def test_shipped_recipes_take_a_step_on_a_small_model(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(models, "locate", None)  # neither Hub nor cache
    found = run.dry_run(Recipe.load(name))
    assert found["steps"] == 1
    assert found["model_type"] == ("qwen3" if "qwen3" in name else "llama")
    if "deepmath" in name:
        assert found["healing"]["max_erasures"] == 5
        assert found["healing"]["segment"] == {"unit": "tokens", "min_tokens": 512, "max_tokens": 512}
        assert found["tokens_per_response"] == 16 * 512


def test_tokens_drawn_add_up_over_steps_not_logged() -> None:
    records = [{"step": 2, "e3rl/drawn_tokens": 10.0}, {"step": 3, "e3rl/drawn_tokens": 4.0}]
    assert report._drawn(records) == {2: 20.0, 3: 24.0}
