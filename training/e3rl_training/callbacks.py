"""What a run shows while it runs, what it writes down, and how it is stopped."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

#: What the progress bar shows: its name there, the metric, how it is written.
_SHOWN = (
    ("tokens", "num_tokens", "{:.0f}"),
    ("reward", "reward", "{:.3f}"),
    ("erased", "e3rl/erased_share", "{:.1%}"),
    ("zero-variance", "frac_reward_zero_std", "{:.0%}"),
)


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar with tokens, reward, erased share, and the share of groups without variance."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if self._bar is not None and logs:
            shown = {name: form.format(logs[key]) for name, key, form in _SHOWN if logs.get(key) is not None}
            self._bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()


class JsonLines(TrainerCallback):  # type: ignore[misc]
    """Every log record as one line; a resumed run drops the lines after the checkpoint it goes on from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            kept = [record for record in read(self.path) if state.global_step and record["step"] <= state.global_step]
            self.path.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as sink:
                sink.write(json.dumps({"step": state.global_step, "time": round(time.time(), 3), **logs}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL log; a last line cut short by a kill is left out."""
    records = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


class Interrupt(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C and SIGTERM end the run after the step at hand, with a checkpoint; a second Ctrl-C ends it at once.

    Whichever rank is asked, all of them stop, and after the same step: a checkpoint is written together.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if any(gather_object([self.asked])):
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
