"""Runs in processes of their own: two ranks that erase unequally, whole and sharded, and a run that is killed."""

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
import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from e3rl_training import callbacks
from e3rl_training.recipe import SHIPPED
from e3rl_training.warmup import make_tokenizer

pytestmark = pytest.mark.slow

RANKS = Path(__file__).with_name("two_ranks.py")
SETTINGS = {"dtype": "float32", "max_model_len": 64, "kv_cache_memory_bytes": 1 << 28}
ENGINE = {"rollout_engine": "vllm", "vllm_settings": SETTINGS}
#: As the shipped recipes have it.
SHARDED = {**ENGINE, "save_steps": 2, "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}}


def environment() -> dict[str, str]:
    """The test's own import paths, one thread a process, and nothing from the Hub."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a starting model in it that vLLM serves, too; its embeddings tied or not, as parametrized."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": request.param}
    config = LlamaConfig(vocab_size=len(tokenizer), **size, **special)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    return tmp_path


def two_ranks(folder: Path, *flags: str, sharded: bool = False, **training: Any) -> dict[str, Any]:
    """What the first of two ranks ends with, and the second, too."""
    recipe = folder.parent / f"{folder.name}.yaml"
    settings = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 24,
        "learning_rate": 1e-3,
        "report_to": "none",
        "healing": {"segment": {"tokens": 6}, "schedule": [2, 1]},
        "credit": {"mode": "unbiased"},
        "plain_fraction": 0.0,
        "continue_fraction": 0.3,
        **training,
    }
    data = {
        "model": {"name": str(folder.parent / "start"), "dtype": "float32"},
        "data": {"name": "modchain", "steps": 4, "limit": 64},
        "rewards": [{"name": "format", "pattern": "[0-4].*"}],
        "training": settings,
        "output": str(folder),
    }
    recipe.write_text(yaml.safe_dump(data), "utf-8")
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    if sharded:
        shards = ["--config_file", str(SHIPPED / "accelerate" / "fsdp2.yaml"), "--main_process_port", "0"]
        launch = ["accelerate.commands.launch", *shards, "--num_processes", "2"]
    command = [sys.executable, "-m", *launch, str(RANKS), str(recipe), *flags]
    subprocess.run(command, check=True, timeout=300, env=environment())
    first, second = (json.loads((folder / f"rank{rank}.json").read_text("utf-8")) for rank in range(2))
    assert first["sharded"] == second["sharded"] == sharded
    assert first["rows"] != second["rows"]
    assert first["erasures"] != second["erasures"]
    assert first["parameters"] == second["parameters"] != first["before"]
    assert first["calibrator"] == second["calibrator"]
    return first


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder / "final").state_dict())


@pytest.mark.parametrize("start", [False], indirect=True)
def test_two_ranks_that_erase_unequally_end_with_the_same_model(start: Path) -> None:
    two_ranks(start / "torch")


@pytest.mark.engine
@pytest.mark.parametrize("start", [True], indirect=True)
def test_ranks_with_an_engine_each_train_alike_whole_or_sharded(start: Path) -> None:
    """FSDP2 shards the same step: what it ends with is what two whole models end with, up to rounding."""
    pytest.importorskip("vllm")
    whole = two_ranks(start / "whole", **ENGINE)
    sharded = two_ranks(start / "sharded", sharded=True, **SHARDED)
    assert whole["erasures"] == sharded["erasures"]
    weights, others = exported(start / "whole"), exported(start / "sharded")
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 1e-5


@pytest.mark.engine
@pytest.mark.parametrize("start", [False], indirect=True)
def test_a_sharded_run_that_one_rank_stops_goes_on_to_the_same_end(start: Path) -> None:
    pytest.importorskip("vllm")
    two_ranks(start / "through", sharded=True, **SHARDED)
    two_ranks(start / "stopped", "--stop", sharded=True, **SHARDED)
    assert not (start / "stopped" / "final").exists()
    two_ranks(start / "stopped", "--resume", sharded=True, **SHARDED)
    through, resumed = exported(start / "through"), exported(start / "stopped")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in through.items())


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
