"""What is asked: a set from the Hub, a generated task or a local file, and which part of it sets thresholds."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from e3rl_core.errors import DataError, EvaluationError, first_complaint
from e3rl_training.data import HELD_OUT, DataSpec, load
from e3rl_training.tasks import TASKS, Problem

#: Asked for behind every problem that is not a generated one: what math-verify reads best.
INSTRUCTION = "Reason step by step. Put the final answer in \\boxed{}."
#: Problems of a generated task where no limit is said.
GENERATED = 200
#: Tokens of an answer to a problem that does not tell how many it takes.
_ROOM = 1024
#: Added to a seed: generated problems are others than the ones a recipe of the same seed trains on.
_APART = 20_000
#: Share of the problems that set thresholds and are not reported on.
CALIBRATION = 0.2
_FEWEST_CALIBRATION = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem as it is sent."""

    prompt: str | list[dict[str, str]]
    """Plain text, or the messages of a chat."""
    answer: str
    task: Problem | None = None
    """The generated problem, which grades itself."""


@dataclass(frozen=True, slots=True)
class Problems:
    title: str
    asked: Sequence[Asked]
    room: int
    """Tokens an answer may take unless told otherwise."""

    @property
    def digest(self) -> str:
        """SHA-256 of prompts and answers: tells other problems apart."""
        text = json.dumps([(one.prompt, one.answer) for one in self.asked])
        return hashlib.sha256(text.encode()).hexdigest()


def load_problems(
    data: str,
    *,
    columns: dict[str, str],
    limit: int | None,
    seed: int,
    steps: int | None = None,
    split: str | None = None,
    instruction: str = INSTRUCTION,
    chat: bool = True,
) -> Problems:
    """The problems that `--data` names.

    Raises:
        DataError: there is no such task or file, it cannot be read, or its columns do not fit; names the flag.
    """
    if data in TASKS:
        if columns or split:
            raise DataError(f"--data {data}: is generated; leave out --columns and --split")
        task = TASKS[data]
        steps = steps or task.steps
        made = task.problems(limit or GENERATED, steps=steps, seed=_APART + seed)
        asked = [Asked(problem.prompt, problem.answer, problem) for problem in made]
        return Problems(data, asked, task.tokens(steps))
    if steps:
        raise DataError(f"--steps: goes with {' and '.join(TASKS)}; leave it out")
    path = None if data in HELD_OUT else Path(data)
    if path is not None and not path.suffix:
        known = ", ".join([*HELD_OUT, *TASKS])
        raise DataError(f"--data {data}: there is no such task; use {known}, or a .jsonl, .json or .parquet file")
    settings = {
        "path": path,
        "name": data if path is None else None,
        "split": split or HELD_OUT.get(data, "train"),
        "columns": columns,
        "limit": limit,
        "seed": seed,
        "instruction": instruction or None,
        "chat": chat,
    }
    try:
        rows = load(DataSpec.model_validate(settings))
    except ValidationError as error:
        raise DataError(f"--{first_complaint(error, 'data')}") from None
    except DataError as error:  # it names keys of a recipe; here they are flags
        message = str(error).replace("data.columns.", "--columns ").replace("data.name", "--data")
        raise DataError(message.replace("data.path", "--data")) from None
    asked = [Asked(row["prompt"], row["answer"]) for row in rows]
    return Problems(data if path is None else path.name, asked, _ROOM)


def split_off(count: int, seed: int, *, calibrates: bool) -> tuple[list[int], list[int]]:
    """Indices of the problems that set thresholds, and of those that are reported on.

    Raises:
        EvaluationError: there are too few for both.
    """
    if not calibrates:
        return [], list(range(count))
    share = max(_FEWEST_CALIBRATION, round(CALIBRATION * count))
    if share >= count:
        raise EvaluationError(
            f"--limit: {count} problems are too few for arms with thresholds, which keep {share} of them apart; "
            "use more, or leave out gated and confident"
        )
    apart = set(random.Random(f"calibration-{seed}").sample(range(count), share))
    return sorted(apart), [index for index in range(count) if index not in apart]
