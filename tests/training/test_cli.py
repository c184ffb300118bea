"""`e3rl train`: one line for an error, and the exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e3rl_core.errors import DataError
from e3rl_training import cli, run

RECIPE = "modchain-cpu.yaml"


def outcome_of(finished: bool) -> Any:
    return lambda recipe, **_: run.Outcome(finished, Path("out"), 7)


def test_done(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(run, "train", outcome_of(True))
    assert cli.main([RECIPE]) == 0
    assert "e3rl serve out/final" in capsys.readouterr().out


def test_interrupted(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(run, "train", outcome_of(False))
    assert cli.main([RECIPE]) == 130
    assert "stopped at step 7; go on with --resume" in capsys.readouterr().err


def test_flags_reach_the_run(monkeypatch: Any) -> None:
    seen: dict[str, Any] = {}

    def train(recipe: Any, **more: Any) -> run.Outcome:
        seen.update(more, steps=recipe.training["max_steps"])
        return run.Outcome(True, Path("out"), 1)

    monkeypatch.setattr(run, "train", train)
    cli.main([RECIPE, "--set", "training.max_steps=5", "--resume"])
    assert seen == {"resume": True, "steps": 5, "command": f"e3rl train {RECIPE} --set training.max_steps=5 --resume"}


def test_an_error_is_one_line(monkeypatch: Any, capsys: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DataError("data.path: there is no file x.jsonl")

    monkeypatch.setattr(run, "train", fail)
    assert cli.main([RECIPE]) == 1
    assert capsys.readouterr().err == "e3rl train: error: data.path: there is no file x.jsonl\n"


def test_a_package_that_is_not_installed(monkeypatch: Any, capsys: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'trl'", name="trl")

    monkeypatch.setattr(run, "train", fail)
    assert cli.main([RECIPE]) == 1
    assert "trl is not installed: pip install 'e3rl[train]'" in capsys.readouterr().err


def test_wrong_usage() -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
