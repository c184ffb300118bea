"""`e3rl tune` against a real server: settings that are tried reach the engine, and what is found works there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from e3rl_training.evaluation.samples import SAMPLES, Sample
from e3rl_training.tuning import cli
from tests.e2e.serving import MODEL, Server

pytestmark = pytest.mark.engine

SHAPE = ("--temperature", "1", "--tries", "2", "--samples", "1", "--max-tokens", "8", "--seed", "2")


@pytest.fixture
def argv(server: Callable[..., Server], tmp_path: Path) -> list[str]:
    """A tuning on sixteen sums."""
    sums = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"What is {one} plus 2?", "answer": str(one + 2)} for one in range(16)]
    sums.write_text("".join(json.dumps(row) + "\n" for row in rows))
    url = server("--healing", "on", "--dtype", "float32").url
    return ["--url", url, "--data", str(sums), "--instruction", "Answer with the number.", *SHAPE]


def samples(folder: Path) -> list[Sample]:
    return [Sample.model_validate_json(line) for line in (folder / SAMPLES).read_text().splitlines()]


@pytest.mark.usefixtures("signals")
def test_a_tuning(argv: list[str], tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    assert cli.main([*argv, "-o", str(out)]) == 0

    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    tried = report["search"]["candidates"]
    assert report["complete"] and report["settings"]["model"] == MODEL and len(tried) == 2
    assert report["search"]["problems"] == report["held_out"]["problems"] == 8
    arms = report["held_out"]["arms"]
    assert list(arms) == ["tuned", "default", "plain@1.0", "plain@0.3", "random@1.0"]
    assert all(0 < arm["tokens"] - arm["erased_tokens"] <= 8 for arm in arms.values())

    second = samples(out / "samples" / "settings-001")
    assert len(second) == 8 and sum(one.erasures for one in second) > 0
    assert all(one.erasures <= tried[1]["max_erasures"] for one in second), "an answer is one segment"
    assert not any(one.erasures for one in samples(out / "samples" / "held-out-plain"))

    found = json.loads((out / "healing.json").read_text())
    body = {"model": MODEL, "prompt": "2 plus 2 is", "max_tokens": 4, "healing": {**found, "mode": "on"}}
    answer = httpx.post(f"{argv[1]}/v1/completions", json=body, timeout=60)
    assert found in tried and answer.status_code == 200 and answer.json()["healing"]["mode"] == "on"
