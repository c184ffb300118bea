"""A small report, committed with its samples: its figures follow from them, and a run of today finds them again.

`small/` holds sums.jsonl and what this command has left of them, MODEL being the folder of the embedded model:

    e3rl eval --model MODEL --data sums.jsonl --arms greedy,plain,healed --samples 2 --max-tokens 10
        --instruction "Answer with the number." --healing '{"segment": {"tokens": 5}}' -o small
        -- --dtype float32 --served-model-name smollm2-135m-instruct --max-model-len 128 --max-num-seqs 16
        --kv-cache-memory-bytes 128M
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from e3rl_training.evaluation import cli
from e3rl_training.evaluation.arms import parse_arms
from e3rl_training.evaluation.problems import load_problems
from e3rl_training.evaluation.run import Settings, evaluate
from e3rl_training.evaluation.samples import SAMPLES, SETTINGS, Sample

SMALL = Path(__file__).parent / "small"
INSTRUCTION, HEALING = "Answer with the number.", {"segment": {"tokens": 5}}


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SMALL / "report.json").read_text())
    return found


def samples(folder: Path) -> dict[Any, Sample]:
    found = map(Sample.model_validate_json, (folder / SAMPLES).read_text().splitlines())
    return {sample.key: sample for sample in found}


def test_the_figures_follow_from_the_samples(tmp_path: Path) -> None:
    """To the last digit, without a server that could draw anything."""
    for name in (SAMPLES, SETTINGS):
        shutil.copy(SMALL / name, tmp_path / name)
    settings = committed()["settings"]

    def only_its_name(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/models", "all samples are there"
        return httpx.Response(200, json={"data": [{"id": settings["model"]}]})

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(only_its_name), base_url="http://small")

    problems = load_problems(
        str(SMALL / "sums.jsonl"), columns={}, limit=None, seed=settings["seed"], instruction=INSTRUCTION
    )
    arms = parse_arms(",".join(settings["arms"]))
    again = Settings(arms, settings["samples"], settings["max_tokens"], settings["seed"], HEALING)
    report = evaluate(problems, again, client, tmp_path, "")
    for part in ("settings", "measured"):
        assert json.dumps(report[part]) == json.dumps(committed()[part])


@pytest.mark.engine
def test_a_run_of_today_agrees(tmp_path: Path) -> None:
    """Greedy answers are the same; what is sampled, which other rounding may change, is within the intervals."""
    from e3rl_core.embedded.model import embedded_model

    argv = ["--model", str(embedded_model()), "--data", str(SMALL / "sums.jsonl"), "--arms", "greedy,plain,healed"]
    shape = ["--samples", "2", "--max-tokens", "10", "--instruction", INSTRUCTION, "--healing", json.dumps(HEALING)]
    room = ["--max-model-len", "128", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "128M"]
    server = ["--dtype", "float32", "--served-model-name", "smollm2-135m-instruct", *room]
    assert cli.main([*argv, *shape, "-o", str(tmp_path), "--", *server]) == 0

    before, now = samples(SMALL), samples(tmp_path)
    assert list(before) and set(before) == set(now)
    for key in (key for key in before if key[0] == "greedy"):
        assert (now[key].text, now[key].committed) == (before[key].text, before[key].committed)
        assert now[key].u == pytest.approx(before[key].u, abs=1e-3)
        assert now[key].logprob == pytest.approx(before[key].logprob, abs=1e-3)
    arms = json.loads((tmp_path / "report.json").read_text())["measured"]["arms"]
    for name, then in committed()["measured"]["arms"].items():
        interval = then["accuracy"]
        assert interval["low"] <= arms[name]["accuracy"]["mean"] <= interval["high"], name
        assert arms[name]["tokens"] == pytest.approx(then["tokens"], rel=0.1), name
