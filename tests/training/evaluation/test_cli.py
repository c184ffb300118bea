"""`e3rl eval`: flags that reach the evaluation, one line for an error, and the exit status."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_training.evaluation import cli, run, server
from e3rl_training.evaluation.arms import parse_arms
from tests.training.evaluation.fake_server import FakeServer

pytestmark = pytest.mark.usefixtures("signals")

URL = ("--url", "http://fake", "--data", "modchain")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an evaluation would have been called with."""
    found: dict[str, Any] = {}

    def evaluate(problems: Any, settings: Any, client: Any, folder: Any, command: str) -> None:
        found.update(problems=problems, settings=settings, client=client, folder=folder, command=command)

    monkeypatch.setattr(run, "evaluate", evaluate)
    return found


def test_flags_reach_the_evaluation(seen: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    flags = ("--arms", "plain,healed", "--limit", "7", "--samples", "3", "--max-tokens", "50", "--seed", "2")
    assert cli.main([*URL, *flags, "--healing", '{"max_erasures": 2}', "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'report.md'}\n"
    settings = seen["settings"]
    assert (settings.samples, settings.max_tokens, settings.seed) == (3, 50, 2)
    assert settings.arms == parse_arms("plain,healed") and settings.healing == {"max_erasures": 2}
    assert len(seen["problems"].asked) == 7
    assert seen["command"].endswith("-o out"), "the folder is somebody's own"


def test_a_server_of_its_own(seen: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    @contextmanager
    def served(model: str, flags: Any, log: Path) -> Iterator[str]:
        started.append((model, list(flags), log.name))
        yield "http://127.0.0.1:1"

    monkeypatch.setattr(server, "served", served)
    argv = ["--model", "m", "--data", "modchain", "-o", str(tmp_path / "out"), "--", "--dtype", "float32"]
    assert cli.main(argv) == 0
    assert started == [("m", ["--dtype", "float32"], "server.log")]
    assert str(seen["client"]().base_url) == "http://127.0.0.1:1"


def test_from_the_command_line_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeServer()
    monkeypatch.setattr("e3rl_training.evaluation.client.open_client", lambda *_: fake.client())
    assert cli.main([*URL, "--arms", "plain,greedy", "--limit", "6", "--samples", "2", "-o", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--arms", "cool"), "--arms: there is no arm 'cool'"),
        (("--data", "gsm9k"), "--data gsm9k: there is no such task"),
        (("--columns", "prompt"), "--columns prompt: write it as prompt=NAME,answer=NAME"),
        (("--columns", "answer="), "--columns answer=: answers are what is graded by"),
        (("--healing", "on"), "--healing: 'on' is no JSON object"),
        (("--healing", '{"max_erasures": -1}'), "--healing.max_erasures: "),
        (("--healing", '{"mode": "on"}'), "mode is the arms' to say"),
        (("--", "--dtype", "float32"), "--dtype: flags behind -- are of the server that --model starts"),
    ],
)
def test_errors_are_one_line(flags: tuple[str, ...], why: str, tmp_path: Path, capsys: Any) -> None:
    assert cli.main([*URL, "-o", str(tmp_path), *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("e3rl eval: error: ") and error.count("\n") == 1 and why in error


def test_a_server_that_dies_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: Any) -> None:
        raise EvaluationError("the server stopped answering")

    monkeypatch.setattr(run, "evaluate", fail)
    assert cli.main([*URL, "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "e3rl eval: error: the server stopped answering\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def stop(*_: Any) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(run, "evaluate", stop)
    assert cli.main([*URL, "-o", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [[], ["--url", "x", "--model", "y", "--data", "modchain", "-o", "z"], [*URL], [*URL, "-o", "z", "--seed", "-1"]],
)
def test_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
