"""The arms of the comparison: what each changes of one common setting."""

from __future__ import annotations

from typing import Any

SEGMENT = 6

#: Every arm's, of every task. The last checkpoint counts, not the best one.
COMMON: dict[str, Any] = {
    "num_generations": 8,
    "lr_scheduler_type": "constant",
    "beta": 0.0,
    "temperature": 1.0,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
    "continue_fraction": 0.0,  # every draw can be graded here, so precision needs no continuation
    "plain_fraction": 0.0,
}

#: Every arm's, by task.
TASK: dict[str, dict[str, Any]] = {
    "modchain": {
        "per_device_train_batch_size": 128,  # 16 prompts
        "learning_rate": 1e-4,
        "bf16": False,
        "healing": {"segment": {"tokens": SEGMENT}, "threshold": {"k": 1.0}, "max_erasures": 2},
    },
    "wordproblems": {
        "per_device_train_batch_size": 32,  # more rows at once gain no time: the logits of 49,152 tokens are large
        "gradient_accumulation_steps": 2,  # 8 prompts
        "learning_rate": 2e-5,
        "bf16": True,  # of the computation; weights are float32, as bfloat16 would round small updates away
        "rollout_engine": "vllm",
        "vllm_settings": {
            "dtype": "bfloat16",
            "max_model_len": 256,
            "max_num_seqs": 128,
            "kv_cache_memory_bytes": 1 << 29,
        },
        "healing": {
            "segment": {"unit": "line", "min_tokens": 2, "max_tokens": 16},
            "threshold": {"k": 1.0},
            "max_erasures": 2,
        },
    },
}

_PLAIN = {"plain_fraction": 1.0, "credit": {"mode": "kept_only"}}

#: What the issue of whether erasing pays is decided by.
MAIN: dict[str, dict[str, Any]] = {
    "grpo": _PLAIN,
    "grpo_t0.7": {**_PLAIN, "temperature": 0.7},
    "kept_only": {"credit": {"mode": "kept_only"}},
    "unbiased": {"credit": {"mode": "unbiased"}},
    "contrastive": {"credit": {"mode": "contrastive"}},
    "contrastive_half_plain": {"credit": {"mode": "contrastive"}, "plain_fraction": 0.5},
}

#: Where else erasing might pay.
FURTHER: dict[str, dict[str, Any]] = {
    "unbiased_half_plain": {"credit": {"mode": "unbiased"}, "plain_fraction": 0.5},
    "plain_weight": {"credit": {"mode": "kept_only", "plain_weight": True}},
    "high_threshold": {
        "credit": {"mode": "contrastive"},
        "healing": {"segment": {"tokens": SEGMENT}, "threshold": {"k": 2.0}, "max_erasures": 2},
    },
    "contrastive_annealed": {"credit": {"mode": "contrastive"}},
    "continued": {
        "credit": {"mode": "kept_only"},
        "plain_fraction": 0.5,
        "continue_fraction": 0.5,
        "continued_credit": True,
    },
}

ARMS = {**MAIN, **FURTHER}

#: Arms whose share of plain rollouts grows from 0 to 1 over the budget.
ANNEALED = ("contrastive_annealed",)


def settings(arm: str, task: str) -> dict[str, Any]:
    """`E3RLConfig`'s, for an arm."""
    return {**COMMON, **TASK[task], **ARMS[arm]}
