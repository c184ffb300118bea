"""Runs in processes of their own: two ranks that erase unequally, and a run that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from e3rl_training import callbacks

pytestmark = pytest.mark.slow

RANKS = Path(__file__).with_name("two_ranks.py")


def environment() -> dict[str, str]:
    """The test's own import paths, one thread a process, and nothing from the Hub."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_two_ranks_that_erase_unequally_end_with_the_same_model(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, str(RANKS), str(tmp_path)], check=True, timeout=300, env=environment())
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text("utf-8")) for rank in range(2))
    assert first["rows"] != second["rows"]
    assert first["erasures"] != second["erasures"]
    assert first["parameters"] == second["parameters"] != first["before"]
    assert first["calibrator"] == second["calibrator"]


@pytest.fixture
def recipe(model: Any, tokenizer: Any, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    path = tmp_path / "recipe.yaml"
    training = {
        "max_steps": 40,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 24,
        "learning_rate": 1e-3,
        "report_to": "none",
        "save_steps": 5,
        "healing": {"segment": {"tokens": 6}, "threshold": {"k": 0.0}},
    }
    data = {
        "model": {"name": str(tmp_path / "start"), "dtype": "float32"},
        "data": {"name": "modchain", "steps": 4, "limit": 64},
        "rewards": [{"name": "format", "pattern": "[0-4].*"}],
        "training": training,
        "output": str(tmp_path / "whole"),
    }
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


def curve(folder: Path) -> list[tuple[int, float, float]]:
    records = callbacks.read(folder / "log.jsonl")
    return [(r["step"], r["reward"], r["e3rl/uncertainty"]) for r in records if "reward" in r]


def test_a_killed_run_resumes_on_the_same_curve(recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "e3rl_training", str(recipe)]
    killed = tmp_path / "killed"
    elsewhere = [*command, "--set", f"output={killed}"]
    quiet = {"env": environment(), "stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(elsewhere, **quiet) as process:
        deadline = time.monotonic() + 200
        while not (killed / "checkpoint-10").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "final").exists()
    assert subprocess.run([*elsewhere, "--resume"], check=False, timeout=300, **quiet).returncode == 0
    assert subprocess.run(command, check=False, timeout=300, **quiet).returncode == 0
    assert len(curve(killed)) == 40
    assert curve(killed) == curve(tmp_path / "whole")
    ends = [(folder / "final" / "model.safetensors").read_bytes() for folder in (killed, tmp_path / "whole")]
    assert ends[0] == ends[1]


def test_ctrl_c_leaves_a_checkpoint(recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "e3rl_training", str(recipe), "--set", "training.save_strategy=no"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 200
        while len(curve(tmp_path / "whole")) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "whole").glob("checkpoint-*")]
