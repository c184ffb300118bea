"""The problems to train on: a named set or a file, as the two columns `prompt` and `answer`."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from e3rl_core.errors import DataError
from e3rl_training.tasks import TASKS

if TYPE_CHECKING:
    from datasets import Dataset

_log = logging.getLogger(__name__)

#: Problems that a generated task has where `limit` does not say.
GENERATED = 4096

_OURS = ("prompt", "answer")


class DataSpec(BaseModel):
    """Where problems come from, and how they become prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: (
        Literal["gsm8k", "math", "deepmath", "math500", "aime24", "aime25", "amc23", "modchain", "wordproblems"] | None
    ) = Field(None, description="A set from the Hub, or generated problems (modchain, wordproblems).")
    path: Path | None = Field(None, description="A file instead: .jsonl, .json (a list of objects) or .parquet.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="What the file calls `prompt` and `answer`, where it calls them otherwise; an `answer` of no name: "
        "it has none.",
    )
    split: str = Field("train", min_length=1, description="Of a set from the Hub.")
    limit: int | None = Field(None, ge=1, description="At most so many problems, drawn at random. Null: all, in order.")
    seed: int = Field(0, ge=0, description="Of that draw, and of generated problems.")
    system: str | None = Field(None, description="System message in front of every prompt.")
    instruction: str | None = Field(None, description="Text behind every prompt, after a blank line.")
    chat: bool = Field(
        True, description="Prompts are messages, for the chat template; else plain text, as generated ones are."
    )
    steps: int | None = Field(
        None, ge=1, description="Of a generated problem; null: 6 for modchain, at most 4 for wordproblems."
    )

    @field_validator("columns")
    @classmethod
    def _maps_ours(cls, columns: dict[str, str]) -> dict[str, str]:
        for key in columns:
            if key not in _OURS:
                raise ValueError(f"unknown key {key!r}; it maps prompt and answer to the names of the file's columns")
        return columns

    @model_validator(mode="after")
    def _fits_together(self) -> DataSpec:
        if (self.name is None) == (self.path is None):
            raise ValueError(
                "needs either a name (gsm8k, math, deepmath, modchain, wordproblems) or a path, and not both"
            )
        if self.columns and self.path is None:
            raise ValueError("columns goes with path; the columns of a named set are known")
        if self.split != "train" and (self.name is None or self.name in TASKS):
            raise ValueError("split goes with sets from the Hub; leave it out")
        if self.name in TASKS:
            if self.system is not None or self.instruction is not None:
                raise ValueError(f"{self.name}'s prompts have no text around them; leave out system and instruction")
        elif self.steps is not None:
            raise ValueError(f"steps goes with {' and '.join(TASKS)}; leave it out")
        if self.system is not None and not self.chat:
            raise ValueError("system is a message; it needs chat: true")
        return self

    @property
    def title(self) -> str:
        """What a report calls the data: the set's name or the file's."""
        return str(self.name) if self.path is None else self.path.name


@dataclass(frozen=True)
class _Hub:
    """A set on the Hub."""

    repository: str
    config: str | None
    prompt: str
    answer: str
    """The column that has the answer in it."""
    extract: Callable[[str], str]
    """Finds the answer in that column's text; empty where there is none."""


@dataclass(frozen=True)
class _Problem:
    prompt: str
    answer: str


def load(spec: DataSpec) -> Dataset:
    """The problems: `prompt` (text, or a list of messages) and `answer` (text).

    Raises:
        DataError: they cannot be read or fetched, or there are none; names the field, and the file's line or row.
    """
    import datasets  # a second or two, which reading a recipe does not need

    if spec.name in TASKS:
        task = TASKS[spec.name]
        made = task.problems(spec.limit or GENERATED, steps=spec.steps or task.steps, seed=spec.seed)
        return datasets.Dataset.from_list([{"prompt": one.prompt, "answer": one.answer} for one in made])
    found = _fetch(spec) if spec.path is None else list(_read(spec, spec.path))
    if not found:
        raise DataError(f"{_field(spec)} holds no problem; name other data")
    if spec.limit is not None:
        random.Random(spec.seed).shuffle(found)
        found = found[: spec.limit]
    return datasets.Dataset.from_list([{"prompt": _prompt(spec, one.prompt), "answer": one.answer} for one in found])


def parse_columns(text: str) -> dict[str, str]:
    """`DataSpec.columns` as commands take them: ``prompt=NAME,answer=NAME``.

    Raises:
        DataError: it is not of that form.
    """
    found = {}
    for pair in filter(None, text.split(",")):
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not equals:
            raise DataError(f"--columns {pair}: write it as prompt=NAME,answer=NAME; answer= where there is none")
        found[ours] = theirs
    return found


def final_answer(answer: str) -> str:
    """What follows GSM8K's ``####``, without commas between thousands; without that mark the text itself."""
    _, mark, final = answer.rpartition("####")
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", final.strip()) if mark else answer.strip()


def last_boxed(solution: str) -> str:
    r"""The content of a solution's last ``\boxed{...}`` or ``\fbox{...}``, braces balanced; empty if there is none."""
    boxes = list(re.finditer(r"\\(?:boxed|fbox)\s*(\{)|\\boxed\s+([^\s$]+)", solution))
    if not boxes:
        return ""
    box = boxes[-1]
    if box[2]:  # `\boxed 2`: TeX needs no braces around a single thing
        return box[2].rstrip(".,")
    depth = 0
    for place in range(box.start(1), len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[place], 0)
        if depth == 0:
            return solution[box.end(1) : place].strip()
    return ""


_HUB = {
    "gsm8k": _Hub("openai/gsm8k", "main", "question", "answer", final_answer),
    "math": _Hub("DigitalLearningGmbH/MATH-lighteval", "default", "problem", "solution", last_boxed),
    "deepmath": _Hub("zwhe99/DeepMath-103K", None, "question", "final_answer", str.strip),
    "math500": _Hub("HuggingFaceH4/MATH-500", None, "problem", "answer", str.strip),
    "aime24": _Hub("HuggingFaceH4/aime_2024", None, "problem", "answer", str.strip),
    "aime25": _Hub("math-ai/aime25", None, "problem", "answer", str.strip),
    "amc23": _Hub("math-ai/amc23", None, "question", "answer", str.strip),
}

#: Sets from the Hub to evaluate on, with the split of each that is not for training.
HELD_OUT = {
    "gsm8k": "test",
    "math": "test",
    "math500": "test",
    "aime24": "train",  # its only one
    "aime25": "test",
    "amc23": "test",
    "deepmath": "train[-1000:]",  # it has no other: recipes leave this part out
}


def _prompt(spec: DataSpec, text: str) -> str | list[dict[str, str]]:
    if spec.instruction is not None:
        text = f"{text}\n\n{spec.instruction}"
    if not spec.chat:
        return text
    system = [] if spec.system is None else [{"role": "system", "content": spec.system}]
    return [*system, {"role": "user", "content": text}]


def _field(spec: DataSpec) -> str:
    return f"data.path: {spec.path}" if spec.name is None else f"data.name: {spec.name!r}"


# --- from the Hub -----------------------------------------------------------------------------------------------------


def _fetch(spec: DataSpec) -> list[_Problem]:
    import datasets

    assert spec.name is not None
    hub = _HUB[spec.name]
    try:
        rows = datasets.load_dataset(hub.repository, hub.config, split=spec.split)
    except Exception as error:  # of a dozen kinds: the Hub's client, its transport's, the file system's
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"data.name: {spec.name!r} ({hub.repository}, split {spec.split}) cannot be fetched from the Hub: "
            f"{reason.rstrip('.')}; use data.path with a local file"
        ) from None
    for column in (hub.prompt, hub.answer):
        if column not in rows.column_names:
            raise DataError(
                f"data.name: {spec.name!r} ({hub.repository}) has no column {column} any more, only "
                f"{', '.join(rows.column_names)}; use data.path with a local file"
            )
    pairs = [
        _Problem(str(prompt).strip(), hub.extract(str(answer)))
        for prompt, answer in zip(rows[hub.prompt], rows[hub.answer], strict=True)
    ]
    whole = [one for one in pairs if one.prompt and one.answer]
    if len(whole) < len(pairs):  # nobody can mend a set on the Hub, so it is no error
        _log.warning("data.name: %d problems of %s have no answer and are left out", len(pairs) - len(whole), spec.name)
    return whole


# --- from a file ------------------------------------------------------------------------------------------------------


def _read(spec: DataSpec, path: Path) -> Iterator[_Problem]:
    readers = {".jsonl": _json_lines, ".json": _json, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"data.path: {path} is of no known kind; use {', '.join(readers)}")
    try:
        for where, row in readers[path.suffix](path):
            prompt, answer = (_value(spec, where, row, ours) for ours in _OURS)
            final = final_answer(answer)
            if not final and answer:
                raise DataError(f"data.path: {where} has nothing after its last ####; write the answer there")
            yield _Problem(prompt, final)
    except FileNotFoundError:
        raise DataError(f"data.path: {path} does not exist; correct it, or use data.name") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.path: {path} cannot be read ({error}); JSON has to be in UTF-8") from None


def _value(spec: DataSpec, where: str, row: Any, ours: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"data.path: {where} is of type {type(row).__name__}; it has to be an object of columns")
    column = spec.columns.get(ours, ours)
    if ours == "answer" and not column:
        return ""
    if column not in row:
        raise DataError(
            f"data.path: {where} has no column {column}, only {', '.join(map(str, row)) or 'none at all'}; "
            f"say which one it is with data.columns.{ours}"
        )
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(
            f"data.path: {where}, column {column} is of type {type(value).__name__}; it has to be text or a number"
        )
    text = str(value).strip()
    if not text:
        raise DataError(f"data.path: {where}, column {column} is empty; fill it or leave the problem out")
    return text


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path} line {number}"
                yield where, _parsed(where, line)


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    rows = _parsed(str(path), path.read_text("utf-8"))
    if not isinstance(rows, list):
        raise DataError(f"data.path: {path} holds no list of objects; for one object per line call it .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"{path} problem {number}", row


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"data.path: {where} is not JSON ({error}); correct it") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowInvalid, parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():  # the other columns may be large
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} problem {number}", row
    except ArrowInvalid as error:
        reason = str(error).partition(".")[0]
        raise DataError(f"data.path: {path} is not a Parquet file ({reason}); write it anew") from None
