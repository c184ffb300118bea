"""One rank of a two-process run: rank 0 erases by a schedule, rank 1 hardly ever. Writes what it ends with."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from e3rl_training.config import E3RLConfig
from e3rl_training.trainer import E3RLTrainer
from e3rl_training.warmup import make_tokenizer

PROMPTS = [f"{a}+{b}>" for a in range(4) for b in range(4)]


def count_of_ones(completions: list[str], **_: Any) -> list[float]:
    return [float(text.count("1")) for text in completions]


def checksum(model: Any) -> str:
    digest = hashlib.sha256()
    for _, value in sorted(model.state_dict().items()):
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def main(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), **size, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    )
    before = checksum(model)
    args = E3RLConfig(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=24,
        max_steps=3,
        learning_rate=1e-3,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        healing={"segment": {"tokens": 6}, "schedule": [2, 1]},
        credit={"mode": "unbiased"},
        plain_fraction=0.0,
    )
    data = Dataset.from_dict({"prompt": PROMPTS})
    trainer = E3RLTrainer(model, [count_of_ones], args, train_dataset=data, processing_class=tokenizer)
    rank = trainer.accelerator.process_index
    if rank == 1:
        trainer._policy = trainer._policy.updated({"schedule": [1, 0, 0, 0]})
    seen = {"rows": 0, "erasures": 0}
    credited, sample = trainer._credited, trainer._sample

    def count_rows(*given: Any) -> Any:
        rows = credited(*given)
        seen["rows"] += len(rows)
        return rows

    def count_erasures(*given: Any) -> Any:
        rollouts = sample(*given)
        seen["erasures"] += sum(rollout.totals.erasures for rollout in rollouts)
        return rollouts

    trainer._credited, trainer._sample = count_rows, count_erasures  # type: ignore[method-assign]
    trainer.train()
    ended = {
        **seen,
        "before": before,
        "parameters": checksum(trainer.accelerator.unwrap_model(trainer.model)),
        "calibrator": trainer.calibrator.model_dump(),
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(ended), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
