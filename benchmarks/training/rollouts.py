"""What erasing costs a rollout beyond the tokens it draws: time per drawn token, against plain rollouts.

ratio = (erasable seconds / plain seconds) / (tokens it drew / tokens the plain one drew)

Both kinds get the same prompts and the same `SEATS`. With more responses than seats, the default, a response that ends
gives its seat to the next prompt; `--responses 32` seats all at once, so those that erase most end in a small batch.
Nothing ends a response early: plain ones fill every seat to the last step, which is the hardest case to compare with.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch

from benchmarks.report import BenchmarkError, parser, run, say, spread
from e3rl_core.embedded.model import embedded_model
from e3rl_core.policy import HealingPolicy
from e3rl_training.rollouts import Rollouts, TorchRollouts

GROUP, TOKENS, SEATS = 8, 96, 32
_PLAIN = HealingPolicy(mode="off")
_ERASING = {"segment": {"tokens": 16}, "max_erasures": 3}
#: How rollouts erase: all at the same places, or where the model is unsure, each row at its own time.
ARMS = {
    "scheduled": HealingPolicy().updated({**_ERASING, "schedule": [1, 0]}),
    "threshold": HealingPolicy().updated({**_ERASING, "threshold": {"k": 0.5}}),
}
ENGINES = ("torch", "vllm")
_QUESTION = (
    "A farmer has {} hens. Each lays {} eggs a week. How many eggs are there after {} weeks? Think step by step."
)


def prompts(tokenizer: Any, groups: int) -> list[list[int]]:
    """So many questions, each for a whole group."""
    texts = [_QUESTION.format(3 + i, 2 + i, 5 + i) for i in range(groups)]
    return [list(tokenizer(text)["input_ids"]) for text in texts for _ in range(GROUP)]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if args.repeats < 1:
        raise BenchmarkError("--repeats takes at least 1")
    if args.responses < GROUP or args.responses % GROUP:
        raise BenchmarkError(f"--responses takes a multiple of {GROUP}")
    folder = args.model or str(embedded_model())
    asked = prompts(AutoTokenizer.from_pretrained(folder), args.responses // GROUP)
    repeats = 1 if args.quick else args.repeats
    tokens = 16 if args.quick else TOKENS
    records: list[dict[str, Any]] = []
    for engine in args.engines:
        if engine == "torch":
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            rollouts: Rollouts = TorchRollouts(
                model, temperature=1.0, top_p=1.0, eos_ids=(), boundaries=None, batch=SEATS
            )
        else:
            from e3rl_training.vllm_rollouts import VllmRollouts

            settings = {"dtype": "bfloat16", "max_model_len": 512, "max_num_seqs": SEATS}
            rollouts = VllmRollouts(folder, temperature=1.0, top_p=1.0, eos_ids=(), **settings)
        _timed(rollouts, asked, _PLAIN, 8, 0)  # to warm up
        for repeat in range(repeats):
            records += [{"engine": engine, "repeat": repeat, **_repeat(rollouts, asked, tokens, repeat)}]
            say(f"{engine}, repeat {repeat + 1} of {repeats}: {records[-1]['ratios']}")
        rollouts.close()
    ratios = {
        engine: {arm: spread([one["ratios"][arm] for one in records if one["engine"] == engine]) for arm in ARMS}
        for engine in args.engines
    }
    medians = {engine: {arm: found["median"] for arm, found in arms.items()} for engine, arms in ratios.items()}
    return {
        "targets": {"ratio": "<= 1.10"},
        "responses": len(asked),
        "seats": SEATS,
        "ratios": medians,
        "intervals": ratios,
        "raw": records,
    }


def _repeat(rollouts: Rollouts, asked: list[list[int]], tokens: int, seed: int) -> dict[str, Any]:
    """Plain, each arm, each arm, plain: a drift of the machine cancels."""
    order = ["plain", *ARMS, *reversed(ARMS), "plain"]
    seconds: dict[str, float] = dict.fromkeys(order, 0.0)
    drawn: dict[str, int] = dict.fromkeys(order, 0)
    for place, arm in enumerate(order):
        spent, count = _timed(rollouts, asked, ARMS.get(arm, _PLAIN), tokens, 1000 * seed + place)
        seconds[arm] += spent
        drawn[arm] += count
    ratios = {arm: round(seconds[arm] / seconds["plain"] / (drawn[arm] / drawn["plain"]), 4) for arm in ARMS}
    return {"ratios": ratios, "seconds": seconds, "drawn_tokens": drawn}


def _timed(
    rollouts: Rollouts, asked: list[list[int]], policy: HealingPolicy, tokens: int, seed: int
) -> tuple[float, int]:
    groups = [row // GROUP for row in range(len(asked))]
    begun = time.perf_counter()
    drawn = rollouts.sample(asked, [policy] * len(asked), groups=groups, max_tokens=tokens, profile=None, seed=seed)
    spent = time.perf_counter() - begun
    return spent, sum(len(one.tokens) + one.totals.erased_tokens for one in drawn)


def main() -> int:
    flags = parser("training.rollouts", "Time per drawn token of erasable rollouts, against plain ones.")
    flags.add_argument("--repeats", type=int, default=3, metavar="N", help="Repeats.")
    flags.add_argument("--responses", type=int, default=2 * SEATS, metavar="N", help=f"Responses for {SEATS} seats.")
    flags.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES, help="Which engines.")
    return run("training.rollouts", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
