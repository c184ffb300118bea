"""Problems: read, fetched or made, as prompts and answers, and what is said where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import ValidationError

from e3rl_core.errors import DataError
from e3rl_training.data import DataSpec, final_answer, last_boxed, load, parse_columns
from e3rl_training.modchain import Problem

ROWS: list[dict[str, Any]] = [
    {"prompt": "1+1?", "answer": "2"},
    {"prompt": "1000+1?", "answer": "1000+1=1,001\n#### 1,001"},
    {"prompt": "1/2?", "answer": 0.5},
    {"prompt": "2*2?", "answer": 4},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows, in the format that the file's name says."""
    if path.suffix == ".parquet":
        datasets.Dataset.from_list([{key: str(value) for key, value in row.items()} for row in rows]).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    return path


@pytest.mark.parametrize("name", ["problems.jsonl", "problems.json", "problems.parquet"])
def test_a_file_becomes_prompts_and_answers(tmp_path: Path, name: str) -> None:
    spec = DataSpec(path=written(tmp_path / name, ROWS))
    found = load(spec)
    assert found.column_names == ["prompt", "answer"]
    assert found["prompt"][0] == [{"role": "user", "content": "1+1?"}]
    assert list(found["answer"]) == ["2", "1001", "0.5", "4"]
    assert spec.title == name


def test_an_answer_column_of_no_name_means_no_answers(tmp_path: Path) -> None:
    spec = DataSpec(path=written(tmp_path / "x.jsonl", [{"prompt": "1+1?"}]), columns={"answer": ""}, chat=False)
    assert load(spec).to_list() == [{"prompt": "1+1?", "answer": ""}]


def test_columns_are_mapped_and_others_left_out(tmp_path: Path) -> None:
    rows = [{"question": "1+1?", "answer": "2", "level": 1}]
    spec = DataSpec(path=written(tmp_path / "x.jsonl", rows), columns={"prompt": "question"}, chat=False)
    assert load(spec).to_list() == [{"prompt": "1+1?", "answer": "2"}]


def test_system_and_instruction_surround_the_problem(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", ROWS[:1])
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?\n\nUse a box."}]
    assert load(DataSpec(path=path, system="Be brief.", instruction="Use a box."))["prompt"][0] == messages
    assert load(DataSpec(path=path, instruction="Use a box.", chat=False))["prompt"][0] == "1+1?\n\nUse a box."


def test_a_limit_draws_at_random_by_seed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [{"prompt": str(n), "answer": n} for n in range(100)])

    def answers(**settings: Any) -> list[str]:
        return list(load(DataSpec(path=path, **settings))["answer"])

    assert answers() == [str(n) for n in range(100)]
    assert len(set(answers(limit=10))) == 10
    assert answers(limit=10) == answers(limit=10)
    assert answers(limit=10) != answers(limit=10, seed=1)
    assert sorted(answers(limit=1000), key=int) == answers()


def test_modchain_is_made_not_read() -> None:
    found = load(DataSpec(name="modchain", limit=20, steps=3, seed=1)).to_list()
    problems = [Problem.parse(row["prompt"]) for row in found]
    assert len(problems) == 20
    assert {len(problem.steps) for problem in problems} == {3}
    assert [row["answer"] for row in found] == [problem.answer for problem in problems]
    assert found != load(DataSpec(name="modchain", limit=20, steps=3, seed=2)).to_list()
    assert DataSpec(name="modchain").title == "modchain"


@pytest.mark.parametrize(("name", "steps"), [("modchain", 6), ("wordproblems", 4)])
def test_a_generated_task_has_a_length_of_its_own(name: str, steps: int) -> None:
    assert load(DataSpec(name=name, limit=20)).to_list() == load(DataSpec(name=name, limit=20, steps=steps)).to_list()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"prompt": "1", "answer": 1}\n\n{"prompt": ', r"x\.jsonl line 3 is not JSON \(Expecting value"),
        ("x.jsonl", "[1]\n", r"x\.jsonl line 1 is of type list; it has to be an object"),
        ("x.jsonl", '{"question": "1", "answer": 1}\n', r"line 1 has no column prompt, only question, answer; say"),
        ("x.jsonl", '{"prompt": "1", "answer": null}\n', "line 1, column answer is of type NoneType; it has to be"),
        ("x.jsonl", '{"prompt": "1", "answer": true}\n', "line 1, column answer is of type bool"),
        ("x.jsonl", '{"prompt": ["1"], "answer": 1}\n', "line 1, column prompt is of type list"),
        ("x.jsonl", '{"prompt": " ", "answer": 1}\n', "line 1, column prompt is empty"),
        ("x.jsonl", '{"prompt": "1", "answer": "it is\\n#### "}\n', "line 1 has nothing after its last ####"),
        ("x.jsonl", "\n", r"x\.jsonl holds no problem"),
        ("x.jsonl", b"\xff\xfe", r"x\.jsonl cannot be read \(.*has to be in UTF-8"),
        ("x.json", "{}", r"x\.json holds no list of objects; for one object per line call it \.jsonl"),
        ("x.json", "{", r"x\.json is not JSON"),
        ("x.json", '[{"prompt": "1", "answer": 1}, {}]', r"x\.json problem 2 has no column prompt, only none at all"),
        ("x.parquet", "{}", r"x\.parquet is not a Parquet file"),
        ("x.csv", "prompt,answer\n", r"x\.csv is of no known kind; use \.jsonl, \.json, \.parquet"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=rf"^data\.path: .*{message}"):
        load(DataSpec(path=tmp_path / name))


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"^data\.path: .*{name} does not exist"):
        load(DataSpec(path=tmp_path / name))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(DataError, match=r"x\.jsonl cannot be read"):
        load(DataSpec(path=tmp_path / "x.jsonl"))


HUB: dict[str, tuple[tuple[Any, ...], dict[str, str], str]] = {
    "gsm8k": (("openai/gsm8k", "main"), {"question": "1?", "answer": "1000+1=<<1000+1=1001>>1001\n#### 1,001"}, "1001"),
    "math": (
        ("DigitalLearningGmbH/MATH-lighteval", "default"),
        {"problem": "1?", "solution": r"It is \boxed{2}, no, \boxed{\frac{1}{2}}.", "level": "1", "type": "Algebra"},
        r"\frac{1}{2}",
    ),
    "deepmath": (
        ("zwhe99/DeepMath-103K", None),
        {"question": "1?", "final_answer": r"\infty", "r1_solution_1": "It is endless."},
        r"\infty",
    ),
    "math500": (("HuggingFaceH4/MATH-500", None), {"problem": "1?", "answer": "2", "solution": r"\boxed{2}"}, "2"),
    "aime24": (("HuggingFaceH4/aime_2024", None), {"problem": "1?", "answer": "204", "year": "2024"}, "204"),
    "aime25": (("math-ai/aime25", None), {"problem": "1?", "answer": "70", "id": "0"}, "70"),
    "amc23": (("math-ai/amc23", None), {"question": "1?", "answer": 27.0, "id": 0}, "27.0"),
}


@pytest.mark.parametrize("name", HUB)
def test_a_named_set_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked, row, answer = HUB[name]
    calls: list[Any] = []

    def load_dataset(*args: Any, **settings: Any) -> datasets.Dataset:
        calls.append((args, settings))
        return datasets.Dataset.from_list([row])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load(DataSpec.model_validate({"name": name, "split": "test", "chat": False})).to_list() == [
        {"prompt": "1?", "answer": answer}
    ]
    assert calls == [(asked, {"split": "test"})]


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **settings: Any) -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub (LocalEntryNotFoundError)\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as raised:
        load(DataSpec(name="gsm8k"))
    assert str(raised.value) == (
        "data.name: 'gsm8k' (openai/gsm8k, split train) cannot be fetched from the Hub: Couldn't reach 'openai/gsm8k' "
        "on the Hub (LocalEntryNotFoundError); use data.path with a local file"
    )


def test_a_set_that_changed_on_the_hub_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = datasets.Dataset.from_list([{"question": "1?", "label": "1"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: changed)
    with pytest.raises(DataError, match="has no column answer any more, only question, label"):
        load(DataSpec(name="gsm8k"))


def test_problems_without_an_answer_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"problem": "1?", "solution": "Unknown."}, {"problem": "2?", "solution": r"\boxed{2}"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    assert list(load(DataSpec(name="math"))["answer"]) == ["2"]
    assert "1 problems of math have no answer" in caplog.text


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("18", "18"),
        ("so\n#### 18 ", "18"),
        ("#### 1,234,567", "1234567"),
        ("#### (1,2)", "(1,2)"),
        ("1,234", "1,234"),
        ("#### ", ""),
    ],
)
def test_final_answer_follows_the_mark(answer: str, final: str) -> None:
    assert final_answer(answer) == final


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{2}", "2"),
        (r"\boxed{1}, then $\boxed{\frac{1}{2^{3}}}$.", r"\frac{1}{2^{3}}"),
        (r"$\fbox{A}$", "A"),
        (r"is $\boxed 2$.", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\frac{1}{2}", ""),
        ("2", ""),
    ],
)
def test_last_boxed_balances_braces(solution: str, answer: str) -> None:
    assert last_boxed(solution) == answer


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "either a name .* or a path, and not both"),
        ({"name": "gsm8k", "path": "x.jsonl"}, "and not both"),
        ({"name": "aime"}, "name\n"),
        ({"path": "x.jsonl", "columns": {"question": "prompt"}}, "columns\n.*unknown key 'question'"),
        ({"name": "gsm8k", "columns": {"prompt": "question"}}, "columns goes with path"),
        ({"path": "x.jsonl", "split": "test"}, "split goes with sets from the Hub"),
        ({"name": "modchain", "instruction": "Think."}, "leave out system and instruction"),
        ({"name": "gsm8k", "steps": 3}, "steps goes with modchain"),
        ({"name": "gsm8k", "chat": False, "system": "Think."}, "it needs chat: true"),
        ({"name": "gsm8k", "limit": 0}, "limit\n"),
        ({"name": "gsm8k", "shuffle": True}, "shuffle\n"),
    ],
)
def test_what_contradicts_itself_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate(spec)


def test_a_spec_survives_its_own_json() -> None:
    spec = DataSpec(name="modchain", steps=3)
    assert DataSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_columns_as_commands_take_them() -> None:
    assert parse_columns("prompt=question, answer=") == {"prompt": "question", "answer": ""}
    assert parse_columns("") == {}
    with pytest.raises(DataError, match=r"--columns question: write it as prompt=NAME"):
        parse_columns("question")
