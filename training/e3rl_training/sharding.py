"""Training a model that is sharded over ranks (FSDP2): what it allows, and how its weights come together again.

Every pass through a sharded model, and every gathering of its weights, is a collective: all ranks take part, in the
same order. Ranks that erase do not sample in step, so engines with whole weights of their own (vLLM) sample for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.integrations import is_deepspeed_zero3_enabled

from e3rl_core.errors import RecipeError


def refuse_unshardable(trainer: Any) -> None:
    """Refuse what a sharded model cannot do, or what nobody has seen it do.

    Raises:
        RecipeError: naming the setting, and what to do.
    """
    if trainer.is_deepspeed_enabled and is_deepspeed_zero3_enabled():
        raise RecipeError(
            "training.deepspeed: ZeRO-3 shards the model, and its weights are not gathered for rollouts; "
            "use ZeRO-2, or FSDP2 with rollout_engine: vllm"
        )
    if not trainer.is_fsdp_enabled:
        return
    args, plugin = trainer.args, trainer.accelerator.state.fsdp_plugin
    wrong = {
        "fsdp_config.version": (plugin.fsdp_version != 2, "FSDP1's weights are not gathered for rollouts; use 2"),
        "rollout_engine": (
            args.rollout_engine != "vllm",
            "'torch' samples with the model being trained, and ranks that erase at their own times cannot share a "
            "sharded one; use 'vllm', or no FSDP and model.lora to save memory",
        ),
        "credit.allocation": (
            args.credit_rule().allocation == "attention",
            "'attention' asks the whole model about one response at a time; use 'uniform' or 'uncertainty'",
        ),
        "fsdp_config.state_dict_type": (
            "FULL" not in str(plugin.state_dict_type),
            "a checkpoint is to hold a whole model; use FULL_STATE_DICT",
        ),
        "optim": (
            "adafactor" in args.optim,
            "'adafactor' does not know sharded weights; use 'adamw_torch'",
        ),
    }
    for setting, (applies, why) in wrong.items():
        if applies:
            raise RecipeError(f"training.{setting}: {why}")
    if hasattr(trainer.model, "merge_adapter"):
        raise RecipeError("model.lora: adapters are not merged into sharded weights; leave lora out, or FSDP")


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor; a collective where it is sharded."""
    whole: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole


def whole_model(trainer: Any, dtype: torch.dtype) -> Any:
    """The trained model, for export. A sharded one is gathered, a collective, and comes back None but on rank 0.

    There it lies in main memory, in `dtype`: FSDP2 trains in float32 what was loaded in bfloat16.
    """
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    if not accelerator.is_fsdp2:
        return model
    weights = accelerator.get_state_dict(trainer.model)
    if not accelerator.is_main_process:
        return None
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model.config)
    whole.load_state_dict(weights, assign=True)
    whole.tie_weights()
    whole.generation_config = model.generation_config
    return whole.to(dtype)
