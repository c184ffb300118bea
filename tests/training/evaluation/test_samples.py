"""The file of samples: whole lines, one set of settings, and going on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_training.evaluation.samples import SAMPLES, Sample, Store


def sample(draw: int) -> Sample:
    return Sample(
        source="plain@1.0", problem=3, draw=draw, answer="7", right=True, gradable=True, committed=9, erased=0,
        u=1.5, logprob=-0.5, seconds=0.1, finish="stop", text="7\n",
    )  # fmt: skip


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "new", {"seed": 1})
    forked = sample(0).model_copy(update={"forks": (sample(0), sample(0))})
    store.add(forked)
    again = Store(tmp_path / "new", {"seed": 1})
    assert again.samples == {("plain@1.0", 3, 0): forked}
    assert ("plain@1.0", 3, 1) not in again


def test_a_line_cut_short_is_drawn_again(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    store.add(sample(0))
    store.add(sample(1))
    path = tmp_path / SAMPLES
    path.write_bytes(path.read_bytes()[:-20])
    again = Store(tmp_path, {})
    assert list(again.samples) == [("plain@1.0", 3, 0)]
    again.add(sample(2))
    assert list(Store(tmp_path, {}).samples) == [("plain@1.0", 3, 0), ("plain@1.0", 3, 2)]


def test_samples_of_another_evaluation(tmp_path: Path) -> None:
    Store(tmp_path, {"seed": 1})
    with pytest.raises(EvaluationError, match=r"holds samples with seed 1, this run has 2; name another folder"):
        Store(tmp_path, {"seed": 2})


def test_a_corrupt_line_is_named(tmp_path: Path) -> None:
    Store(tmp_path, {}).add(sample(0))
    path = tmp_path / SAMPLES
    path.write_text('{"source": 1}\n' + path.read_text())
    with pytest.raises(EvaluationError, match=r"samples.jsonl line 1: source"):
        Store(tmp_path, {})


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"-o .*file: cannot be used"):
        Store(tmp_path / "file", {})
