"""What a run writes down, and how it is stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState

from e3rl_training.callbacks import Interrupt, JsonLines, read


def test_a_resumed_log_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    state, control = TrainerState(), TrainerControl()
    log.on_train_begin(None, state, control)
    for step in range(1, 5):
        state.global_step = step
        log.on_log(None, state, control, logs={"reward": step})
    state.global_step = 2
    log.on_train_begin(None, state, control)
    assert [record["reward"] for record in read(log.path)] == [1, 2]


def test_a_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.path.write_text('{"step": 1}\n')
    log.on_train_begin(None, TrainerState(), TrainerControl())
    assert read(log.path) == []


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "rew')
    assert read(tmp_path / "log.jsonl") == [{"step": 1}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops_after_the_step(number: signal.Signals) -> None:
    callback, state, control = Interrupt(), TrainerState(), TrainerControl()
    before = signal.getsignal(number)
    callback.on_train_begin(None, state, control)
    try:
        os.kill(os.getpid(), number)
        callback.on_step_end(None, state, control)
        assert control.should_save
        assert control.should_training_stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        callback.on_train_end(None, state, control)
    assert signal.getsignal(number) == before
