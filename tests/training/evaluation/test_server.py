"""A server of its own: that it starts, and what is said where it does not; then a whole evaluation on a real engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_training import warmup
from e3rl_training.evaluation import cli
from e3rl_training.evaluation.server import served


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with (
        pytest.raises(EvaluationError, match=r"--model: the server did not start: .*no such folder"),
        served(nowhere, (), tmp_path / "log"),
    ):
        pass


@pytest.mark.engine
@pytest.mark.slow
def test_a_policy_that_barely_knows_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing to a report in one command: sources of all kinds on vLLM, with rules over them."""
    monkeypatch.setitem(warmup.POLICIES, "modchain-s1", replace(warmup.POLICIES["modchain-s1"], updates=5))
    policy = warmup.starting_policy("modchain-s1", tmp_path, 0)
    out = tmp_path / "out"
    flags = ("--dtype", "float32", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "64M")
    argv = ["--model", str(policy), "--data", "modchain", "--limit", "12", "--samples", "2", "-o", str(out)]
    arms = (
        "plain,greedy,top_p,min_p,healed,random,retry_cool,oracle,gated:2,forked:3,confident:2,best:2,majority:2@healed"
    )
    healing = '{"segment": {"tokens": 6}, "threshold": {"k": 0.0}, "max_erasures": 1}'
    assert cli.main([*argv, "--arms", arms, "--healing", healing, "--", *flags]) == 0
    report = json.loads((out / "report.json").read_text())
    measured = report["measured"]
    assert measured["arms"]["plain@1.0"]["tokens"] > 5 and measured["arms"]["plain@1.0"]["erased_tokens"] == 0
    rates = measured["erase_rates"]
    assert 0 < rates["random@1.0"] < rates["healed@1.0"] + 0.1
    assert all(found["reliability"] for found in measured["uncertainty"].values())
