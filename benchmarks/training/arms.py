"""The arms of the comparison: what each changes of one common setting."""

from __future__ import annotations

from typing import Any

SEGMENT = 6

#: Every arm's: 16 prompts, 8 responses each. The last checkpoint counts, not the best one.
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 128,
    "num_generations": 8,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "beta": 0.0,
    "temperature": 1.0,
    "bf16": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
    "continue_fraction": 0.0,  # every draw can be graded here, so precision needs no continuation
    "plain_fraction": 0.0,
    "healing": {"segment": {"tokens": SEGMENT}, "threshold": {"k": 1.0}, "max_erasures": 2},
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
    "continued": {
        "credit": {"mode": "kept_only"},
        "plain_fraction": 0.5,
        "continue_fraction": 0.5,
        "continued_credit": True,
    },
}

ARMS = {**MAIN, **FURTHER}


def settings(arm: str) -> dict[str, Any]:
    """`E3RLConfig`'s, for an arm."""
    return {**COMMON, **ARMS[arm]}
