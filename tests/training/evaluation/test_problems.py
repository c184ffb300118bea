"""What is asked: tasks, files with their columns, and the part that sets thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e3rl_core.errors import DataError, EvaluationError
from e3rl_training import data
from e3rl_training.data import HELD_OUT, DataSpec
from e3rl_training.evaluation.problems import INSTRUCTION, Problems, load_problems, split_off
from e3rl_training.modchain import problems as chains


def load(name: str, **settings: Any) -> Problems:
    return load_problems(name, **{"columns": {}, "limit": None, "seed": 0, **settings})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}+1?", "label": n + 1}) + "\n" for n in range(8)))
    return path


def test_a_generated_task() -> None:
    found = load("modchain", limit=3)
    assert (len(found.asked), found.room) == (3, 36)
    assert all(one.task is not None and one.task.answer == one.answer for one in found.asked)
    assert not {one.prompt for one in found.asked} & {one.prompt for one in chains(4096, steps=6, seed=0)}


def test_a_longer_task_takes_more_tokens() -> None:
    found = load("modchain", limit=1, steps=9)
    assert found.room == 54 and len(found.asked[0].prompt) == 20


def test_a_file_with_its_columns(file: Path) -> None:
    found = load(str(file), columns={"prompt": "question", "answer": "label"})
    assert found.title == "mine.jsonl"
    assert [one.answer for one in found.asked] == [str(n + 1) for n in range(8)]
    assert found.asked[0].prompt == [{"role": "user", "content": f"0+1?\n\n{INSTRUCTION}"}]
    plain = load(str(file), columns={"prompt": "question", "answer": "label"}, chat=False, instruction="", limit=2)
    assert len(plain.asked) == 2 and isinstance(plain.asked[0].prompt, str) and plain.digest != found.digest


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_set_from_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DataSpec] = []
    monkeypatch.setattr("e3rl_training.evaluation.problems.load", lambda spec: asked.append(spec) or [])
    load(name)
    assert (asked[0].name, asked[0].split) == (name, HELD_OUT[name])
    assert name in data._HUB


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"name": "gsm9k"}, "--data gsm9k: there is no such task; use gsm8k"),
        ({"name": "no/such.jsonl"}, "--data: no/such.jsonl does not exist"),
        ({"name": "table.csv"}, "--data: table.csv is of no known kind"),
        ({"name": "gsm8k", "steps": 3}, "--steps: goes with modchain and wordproblems"),
        ({"name": "modchain", "columns": {"prompt": "q"}}, "leave out --columns"),
        ({"name": "gsm8k", "columns": {"prompt": "q"}}, "columns goes with path"),
    ],
)
def test_wrong_data(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError) as raised:
        load(**settings)
    assert why in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, "line 1 has no column prompt, only question, label; say which one it is with --columns prompt"),
        ({"prompt": "text"}, "has no column text"),
        ({"question": "prompt"}, "--columns: unknown key 'question'"),
    ],
)
def test_columns_that_do_not_fit(file: Path, columns: dict[str, str], why: str) -> None:
    with pytest.raises(DataError) as raised:
        load(str(file), columns=columns)
    assert why in str(raised.value)


def test_a_fifth_is_kept_apart() -> None:
    apart, rest = split_off(100, 7, calibrates=True)
    assert len(apart) == 20 and sorted(apart + rest) == list(range(100))
    assert split_off(100, 7, calibrates=True) == (apart, rest) != split_off(100, 8, calibrates=True)
    assert split_off(3, 7, calibrates=False) == ([], [0, 1, 2])


def test_too_few_to_keep_some_apart() -> None:
    with pytest.raises(EvaluationError, match="--limit: 5 problems are too few"):
        split_off(5, 0, calibrates=True)
