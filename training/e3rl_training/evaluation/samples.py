"""Every draw as a line of `samples.jsonl`, written as it comes: what a run goes on from after it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from e3rl_core.errors import EvaluationError, first_complaint

SAMPLES, SETTINGS = "samples.jsonl", "settings.json"

Key = tuple[str, int, int]


class Segment(BaseModel):
    """A kept segment, with what was erased in its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int
    erased: int
    u: float
    """Nats."""
    threshold: float | None = None
    """That the kept draw was held against, nats."""
    chars: int | None = None
    """Of its text; None where the server does not tell."""
    flagged: bool = False
    """Whether the first draw here was erased, or in shadow mode would have been."""
    first: str | None = None
    """What that draw said, where it was erased and streamed."""


class Sample(BaseModel):
    """One draw: an answer of a source to a problem."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    problem: int
    draw: int
    answer: str
    """As votes compare it; empty where there is none."""
    right: bool
    gradable: bool
    committed: int
    """Tokens."""
    erased: int
    """Tokens."""
    erasures: int = 0
    u: float | None = None
    """Mean U of the kept segments, nats; None where the server does not tell."""
    logprob: float
    """Mean log-probability of the kept tokens."""
    segments: tuple[Segment, ...] = ()
    seconds: float
    """From request to answer."""
    first_token: float | None = None
    """Seconds until there was any text, provisional or final; None where the answer was not streamed."""
    first_committed: float | None = None
    """Seconds until there was final text."""
    finish: str
    text: str
    forks: tuple[Sample, ...] = ()
    """Answers that share a beginning with this one: their tokens, segments and U are those behind it."""

    @property
    def key(self) -> Key:
        return self.source, self.problem, self.draw

    @property
    def tokens(self) -> int:
        """All that were drawn."""
        return self.committed + self.erased


class Store:
    """The samples of a folder.

    Args:
        folder: made if it is not there.
        settings: all that decides what a sample is; a folder holds samples of one such set.

    Raises:
        EvaluationError: the folder holds samples of other settings, or cannot be read or written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._path = folder / SAMPLES
        self.samples: dict[Key, Sample] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._settle(folder / SETTINGS, settings)
            self.samples = {sample.key: sample for sample in self._read()}
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"-o {folder}: cannot be used ({error}); name another folder") from None

    def add(self, sample: Sample) -> None:
        """Keep a sample: one write of one line, so that a kill leaves whole lines and perhaps a part of the last."""
        line = sample.model_dump_json() + "\n"
        with self._path.open("ab") as sink:
            sink.write(line.encode())
        self.samples[sample.key] = sample

    def __contains__(self, key: Key) -> bool:
        return key in self.samples

    def _settle(self, path: Path, settings: dict[str, Any]) -> None:
        if not path.exists():
            if self._path.exists():
                raise EvaluationError(f"-o {self.folder}: holds {SAMPLES} without {SETTINGS}; name another folder")
            write_whole(path, json.dumps(settings, indent=2) + "\n")
            return
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise EvaluationError(f"-o {self.folder}: {SETTINGS} is not JSON; name another folder") from None
        for key, value in settings.items():
            if before.get(key) != value:
                raise EvaluationError(
                    f"-o {self.folder}: holds samples with {key} {before.get(key)!r}, this run has {value!r}; "
                    "name another folder"
                )

    def _read(self) -> Iterator[Sample]:
        if not self._path.exists():
            return
        lines = self._path.read_bytes().split(b"\n")
        if lines[-1]:  # cut short by a kill: what is added next must not continue it
            os.truncate(self._path, self._path.stat().st_size - len(lines[-1]))
        for number, line in enumerate(lines[:-1], 1):
            try:
                yield Sample.model_validate_json(line)
            except ValidationError as error:
                what = first_complaint(error, "it")
                raise EvaluationError(
                    f"{self._path} line {number}: {what}; remove the line, or name another folder"
                ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a file in one go: a reader sees the old one or the new one."""
    half = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    half.write_text(text, "utf-8")
    os.replace(half, path)
