"""Peak memory of a training step over the response's length: erasing against plain GRPO, a process for each.

Erased draws are further rows, but the loss takes no more rows at once than a plain trainer does, so memory should grow
with length as it does there: in a straight line, as steep.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import BenchmarkError, parser, run, say

#: Above 512: TRL makes the logits of 4,096 tokens at a time, so up to there (8 rows of 512) its peak rises faster.
LENGTHS = (768, 1024, 1280, 1536)
ARMS = {"grpo": 1.0, "erasing": 0.0}  # the share of rollouts that erase nothing
ROWS, SEGMENT, VOCABULARY = 8, 64, 8192
#: Every tensor in pages of its own, given back when it is freed: a fragmented heap would blur the peak by half.
_EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def fit(lengths: Sequence[float], peaks: Sequence[float]) -> dict[str, float]:
    """The straight line through peaks over lengths: slope, intercept, and R squared."""
    slope, intercept = statistics.linear_regression(lengths, peaks)
    return {"slope": slope, "intercept": intercept, "r_squared": statistics.correlation(lengths, peaks) ** 2}


def step(arm: str, length: int) -> dict[str, float]:
    """One training step of random responses of exactly `length` tokens; its peak, MiB, and what it drew."""
    import resource

    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    from e3rl_training.config import E3RLConfig
    from e3rl_training.rollouts import TorchRollouts
    from e3rl_training.trainer import E3RLTrainer
    from e3rl_training.warmup import make_tokenizer

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2 * max(LENGTHS),
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )

    def endless(_: E3RLTrainer) -> TorchRollouts:
        return TorchRollouts(model, temperature=1.0, top_p=1.0, eos_ids=(), boundaries=None, batch=ROWS)

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [float(ids[0] % 2) for ids in completion_ids]

    with TemporaryDirectory() as folder:
        args = E3RLConfig(
            output_dir=folder,
            per_device_train_batch_size=ROWS,
            num_generations=ROWS,
            max_completion_length=length,
            max_steps=1,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            gradient_checkpointing=False,  # on, activations would hardly grow with length, and other peaks hide them
            healing={"segment": {"tokens": SEGMENT}, "schedule": [1, 0]},
            credit={"mode": "unbiased"},
            plain_fraction=ARMS[arm],
            continue_fraction=0.0,
        )
        data = Dataset.from_dict({"prompt": ["1+1>"] * ROWS})
        trainer = E3RLTrainer(
            model, [reward], args, train_dataset=data, processing_class=tokenizer, make_rollouts=endless
        )
        trainer.train()
        drawn = [log["e3rl/drawn_tokens"] for log in trainer.state.log_history if "e3rl/drawn_tokens" in log]
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "drawn_tokens": drawn[0]}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    lengths = LENGTHS[:2] if args.quick else LENGTHS
    records = []
    for arm, length in product(ARMS, lengths):
        command = [sys.executable, "-m", "benchmarks.training.memory", "--one", arm, str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_EXACT})
        if done.returncode != 0:
            raise BenchmarkError(
                f"{arm} at {length} tokens: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        records.append({"arm": arm, "length": length, **json.loads(done.stdout.strip().splitlines()[-1])})
        say(
            f"{arm}, {length} tokens: {records[-1]['peak_mib']:.0f} MiB, {records[-1]['drawn_tokens']:.0f} tokens drawn"
        )
    fits = {
        arm: fit(list(map(float, lengths)), [record["peak_mib"] for record in records if record["arm"] == arm])
        for arm in ARMS
    }
    ratio = fits["erasing"]["slope"] / fits["grpo"]["slope"]
    targets = {"r_squared": ">= 0.99", "slope": "0.90 to 1.10 of grpo's"}
    return {"targets": targets, "ratios": {"slope": round(ratio, 4)}, "fits": fits, "raw": records}


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(step(sys.argv[2], int(sys.argv[3]))))
        return 0
    return run("training.memory", measure, parser("training.memory", "Memory of a step over length.").parse_args())


if __name__ == "__main__":
    sys.exit(main())
