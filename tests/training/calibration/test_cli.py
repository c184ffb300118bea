"""`e3rl calibrate`: what reaches the run, what it prints, and one line for an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from e3rl_core.errors import DataError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile
from e3rl_training.calibration import cli, measures, run
from tests.training.calibration.test_measures import ANSWERS, RIGHT


def report(graded: bool) -> dict[str, Any]:
    measured = measures.measure(ANSWERS, HealingPolicy(mode="shadow"), None)
    found = {**measures.discrimination(ANSWERS, RIGHT, measured), "ungradable": 1} if graded else None
    return {
        "answers": 6, "segments": 11, "truncated": 1, "temperature": 0.7, "threshold": measures.thresholds(measured),
        "by_segment": [one.model_dump() for one in measured.statistics], "discrimination": found,
    }  # fmt: skip


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def calibrate(*arguments: Any) -> run.Calibration:
        calls.append(arguments)
        return run.Calibration(Profile(mean=(1.0,), std=(0.1,)), Path("out.json"), report(graded=True))

    monkeypatch.setattr(run, "calibrate", calibrate)
    return calls


def test_flags_reach_the_run(seen: list[Any]) -> None:
    argv = ["M", "--data", "d.jsonl", "--columns", "prompt=q,answer=a", "--erase-rate", "0.1", "-o", "p.json"]
    assert cli.main(argv) == 0
    ((model, settings, output),) = seen
    assert (model, output) == ("M", Path("p.json"))
    assert (settings.columns, settings.erase_rate) == ({"prompt": "q", "answer": "a"}, 0.1)
    assert (settings.temperature, settings.max_tokens, settings.limit, settings.preset) == (0.7, 256, 200, None)


def test_what_it_prints(seen: list[Any], capsys: Any) -> None:
    cli.main(["--data", "d.jsonl"])
    out = capsys.readouterr().out
    assert "6 answers, 11 segments" in out
    assert "4 of 6 graded answers are right" in out
    assert "AUROC of max U: 1.000 ± 0.000" in out
    assert out.endswith("out.json\n")


def test_without_answers_it_prints_thresholds_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = run.Calibration(Profile(mean=(1.0,), std=(0.1,)), Path("out.json"), report(graded=False))
    monkeypatch.setattr(run, "calibrate", lambda *_: found)
    cli.main(["--data", "d.jsonl"])
    out = capsys.readouterr().out
    assert "k   erased" in out and "AUROC" not in out


def test_the_report_as_json(seen: list[Any], tmp_path: Path) -> None:
    assert cli.main(["--data", "d.jsonl", "--report", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["segments"] == 11


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: Any) -> None:
        raise DataError("--data x.jsonl does not exist")

    monkeypatch.setattr(run, "calibrate", fail)
    assert cli.main(["--data", "x.jsonl"]) == 1
    assert capsys.readouterr().err == "e3rl calibrate: error: --data x.jsonl does not exist\n"


def test_columns_that_map_nothing(capsys: Any) -> None:
    assert cli.main(["--data", "d.jsonl", "--columns", "question"]) == 1
    assert "--columns question: write it as prompt=NAME" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--erase-rate", "2"], ["--limit", "0"], ["--temperature", "-1"], ["--seed", "x"]])
def test_values_out_of_range(flags: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--data", "d.jsonl", *flags])
    assert flags[0] in capsys.readouterr().err
