"""A trained checkpoint behind `e3rl serve`: healed answers to fresh problems against the free rivals, tokens counted.

    plain          healing off, temperature 1
    cool           healing off, temperature 0.3
    healed         healing on as the checkpoint's profile has it, temperature 1
    vote           the majority of three plain answers
    healed_vote    the majority of three healed answers

Erased tokens count. `vote_at_healed_tokens` asks three times for as many problems, at random, as brings its tokens to
those of `healed`, and once for the others.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.report import BenchmarkError, parser, run, say
from benchmarks.server import serve
from e3rl_training.tasks import TASKS, Problem

#: A profile decides how the healing server heals; nothing else is said of it here.
FLAGS = (
    "--enforce-eager", "--max-num-seqs", "64", "--kv-cache-memory-bytes", "256M", "--disable-uvicorn-access-log",
)  # fmt: skip
#: By task, as the checkpoints are.
DTYPES = {"modchain": "float32", "wordproblems": "bfloat16"}
VOTES = 3
#: Two-sided 95 % quantile of the normal distribution: these are hundreds of problems.
_Z = 1.96


@dataclass(frozen=True)
class Arm:
    temperature: float
    healing: str
    votes: int


ARMS = {
    "plain": Arm(1.0, "off", 1),
    "cool": Arm(0.3, "off", 1),
    "healed": Arm(1.0, "on", 1),
    "vote": Arm(1.0, "off", VOTES),
    "healed_vote": Arm(1.0, "on", VOTES),
}


@dataclass(frozen=True)
class Answered:
    right: bool
    tokens: int
    """Drawn, the erased ones included."""
    erased: int


def majority(answers: Sequence[str]) -> str:
    """The most frequent answer; of equals the first."""
    return Counter(answers).most_common(1)[0][0]


async def ask(client: httpx.AsyncClient, model: str, arm: Arm, problem: Problem, room: int, seed: int) -> Answered:
    body = {
        "model": model,
        "prompt": problem.prompt,
        "max_tokens": room,
        "temperature": arm.temperature,
        "n": arm.votes,
        "seed": seed,
        "healing": {"mode": arm.healing},
    }
    response = await client.post("/v1/completions", json=body)
    if response.status_code != 200:
        raise BenchmarkError(f"the server answered {response.status_code}: {response.text[:200]}")
    answer = response.json()
    usage = answer["usage"]
    erased = (usage.get("completion_tokens_details") or {}).get("erased_tokens", 0)
    chosen = majority([problem.answer_in(choice["text"]) for choice in answer["choices"]])
    return Answered(chosen == problem.answer, usage["completion_tokens"] + erased, erased)


async def ask_all(url: str, model: str, asked: Sequence[Problem], room: int) -> dict[str, list[Answered]]:
    """Every arm's answers; `room` is the most tokens of a response."""
    limits = httpx.Limits(max_connections=32)
    found = {}
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        for name, arm in ARMS.items():
            tasks = [ask(client, model, arm, problem, room, seed) for seed, problem in enumerate(asked)]
            found[name] = list(await asyncio.gather(*tasks))
            say(f"{name}: {statistics.fmean(one.right for one in found[name]):.3f}")
    return found


def summarise(found: dict[str, list[Answered]]) -> dict[str, Any]:
    """Accuracy with its 95 % interval, tokens a problem, and each arm's paired difference to `healed`."""
    healed = [float(one.right) for one in found["healed"]]
    rows: dict[str, Any] = {}
    for name, answers in found.items():
        right = [float(one.right) for one in answers]
        rows[name] = {
            "accuracy": _interval(right),
            "tokens": round(statistics.fmean(one.tokens for one in answers), 2),
            "erased_tokens": round(statistics.fmean(one.erased for one in answers), 2),
        }
        if name != "healed":
            rows[name]["healed_minus_this"] = _interval([a - b for a, b in zip(healed, right, strict=True)])
    rows["vote_at_healed_tokens"] = _mixed(rows, found)
    return rows


def _mixed(rows: dict[str, Any], found: dict[str, list[Answered]]) -> dict[str, Any]:
    """In expectation over which problems are asked three times."""
    plain, vote, healed = (rows[name]["tokens"] for name in ("plain", "vote", "healed"))
    share = min(1.0, max(0.0, (healed - plain) / (vote - plain)))
    expected = [
        share * one.right + (1 - share) * other.right for one, other in zip(found["vote"], found["plain"], strict=True)
    ]
    difference = [one.right - mixed for one, mixed in zip(found["healed"], expected, strict=True)]
    return {
        "accuracy": _interval(expected),
        "tokens": round(plain + share * (vote - plain), 2),
        "erased_tokens": 0.0,
        "healed_minus_this": _interval(difference),
    }


def _interval(values: Sequence[float]) -> dict[str, float]:
    half = _Z * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(statistics.fmean(values), 4), "half_width": round(half, 4)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.model is None:
        raise BenchmarkError("--model: name the checkpoint, e.g. runs/modchain-cpu/final")
    count = 20 if args.quick else args.problems
    task = TASKS[args.task]
    steps = args.steps or task.steps
    asked = task.problems(count, steps=steps, seed=args.seed)
    with serve("on", args.model, (*FLAGS, "--dtype", DTYPES[args.task])) as server:
        found = asyncio.run(ask_all(server.url, server.model(), asked, task.tokens(steps)))
    return {"task": args.task, "problems": count, "steps": steps, "arms": summarise(found)}


def main() -> int:
    flags = parser("training.served", "A trained checkpoint served: healed answers against the free rivals.")
    flags.add_argument("--problems", type=int, default=500, metavar="N", help="Fresh problems.")
    flags.add_argument("--task", default="modchain", choices=TASKS, help="What the checkpoint was trained on.")
    flags.add_argument("--steps", type=int, metavar="N", help="Of a problem; default: the task's own.")
    flags.add_argument("--seed", type=int, default=20_000, metavar="N", help="Of the problems.")
    return run("training.served", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
