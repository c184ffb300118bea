"""Everything E3RL adds to TRL's `GRPOConfig`, each knob with what it does and whose idea it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from trl import GRPOConfig

from e3rl_core.credit import CreditRule
from e3rl_core.errors import PolicyError, RecipeError
from e3rl_core.policy import HealingPolicy

#: Losses whose value is a sum over tokens, so that further rows change no other row's weight.
_TOKEN_LOSSES = ("dapo", "cispo")


@dataclass
class E3RLConfig(GRPOConfig):  # type: ignore[misc]
    """`GRPOConfig` with erasable rollouts and segment-level credit.

    Raises:
        RecipeError: a setting is out of range, or one of TRL's cannot be combined with erasing.
    """

    healing: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "How rollouts erase: any healing setting (docs/configuration.md). Null: preset `responsive`."
        },
    )
    credit: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "How rewards reach draws (F8-F11): mode unbiased|contrastive|kept_only, alpha, gate, allocation, "
            "plain_weight, weight_bounds."
        },
    )
    plain_fraction: float = field(
        default=0.5,
        metadata={
            "help": "Share of each group's rollouts that erase nothing [ours]: erasing raises the reward, and groups "
            "that all succeed teach nothing."
        },
    )
    continue_fraction: float = field(
        default=0.05,
        metadata={"help": "Share of erased draws continued to the end, to measure the erase rule's precision [ours]."},
    )
    continued_credit: bool = field(
        default=False,
        metadata={"help": "Train on continued erased draws too, with their own returns [ours]; else only report them."},
    )
    calibration_decay: float = field(
        default=0.9,
        metadata={"help": "Weight per generation batch of older moments of U: the threshold follows the model [ours]."},
    )
    rollout_engine: str = field(
        default="torch", metadata={"help": "torch: the model being trained samples; vllm: our vLLM scheduler does."}
    )
    rollout_batch: int = field(
        default=256,
        metadata={
            "help": "Most responses in the torch engine at once: bounds its memory. One that ends seats the next."
        },
    )
    vllm_settings: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Settings of the vLLM engine, e.g. gpu_memory_utilization, max_model_len."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.healing_policy()
        self.credit_rule()
        self.engine_settings()
        self._check_ranges()
        self._check_combinations()

    def healing_policy(self) -> HealingPolicy:
        """The policy of rollouts that erase."""
        try:
            return HealingPolicy().updated(self.healing or "on", where="training.healing")
        except PolicyError as error:
            raise RecipeError(str(error)) from None

    def credit_rule(self) -> CreditRule:
        """The rule that spreads rewards over draws."""
        settings = _json(self.credit, "credit") if isinstance(self.credit, str) else self.credit
        try:
            return CreditRule.model_validate(settings or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(["training.credit", *map(str, first["loc"])])
            message = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
            raise RecipeError(f"{where}: {message}") from None

    def engine_settings(self) -> dict[str, Any]:
        """Of the vLLM engine."""
        settings = self.vllm_settings
        return _json(settings, "vllm_settings") if isinstance(settings, str) else settings or {}

    def _check_ranges(self) -> None:
        for name in ("plain_fraction", "continue_fraction"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise RecipeError(f"training.{name}: is {value}, use a share from 0 to 1")
        if not 0.0 < self.calibration_decay <= 1.0:
            raise RecipeError(f"training.calibration_decay: is {self.calibration_decay}, use more than 0, at most 1")
        if self.rollout_batch < 1:
            raise RecipeError(f"training.rollout_batch: is {self.rollout_batch}, use at least 1")
        if self.rollout_engine not in ("torch", "vllm"):
            raise RecipeError(f"training.rollout_engine: is {self.rollout_engine!r}, use 'torch' or 'vllm'")

    def _check_combinations(self) -> None:
        if self.loss_type not in _TOKEN_LOSSES:
            raise RecipeError(
                f"training.loss_type: {self.loss_type!r} averages over rows, and erased draws are further rows; "
                f"use {' or '.join(map(repr, _TOKEN_LOSSES))}"
            )
        if self.importance_sampling_level != "token":
            raise RecipeError("training.importance_sampling_level: segments need 'token'")
        if self.use_vllm:
            raise RecipeError("training.use_vllm: is TRL's own generation; for vLLM rollouts say rollout_engine: vllm")
        if self.temperature <= 0:
            raise RecipeError(f"training.temperature: is {self.temperature}, rollouts need more than 0")
        policy = self.healing_policy()
        if policy.retry.temperature not in (None, self.temperature):
            raise RecipeError(
                f"training.healing.retry.temperature: is {policy.retry.temperature}, but the loss knows one "
                f"temperature, {self.temperature}; leave it out"
            )
        if policy.keep == "best" and policy.mode == "on":
            raise RecipeError("training.healing.keep: 'best' selects what is trained on, use 'last'")
        if policy.erase_from == "onset" and policy.mode == "on":
            raise RecipeError("training.healing.erase_from: 'onset' lets what follows cut a segment, use 'segment'")
        rule = self.credit_rule()
        if rule.plain_weight and rule.mode != "kept_only":
            raise RecipeError("training.credit.plain_weight: weights kept tokens alone, use it with mode kept_only")


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RecipeError(f"training.{name}: is no JSON object: {text[:40]!r}")
    return value
