"""What is asked of a sharded model and refused by name; two ranks that shard for real are in test_processes.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from e3rl_core.credit import CreditRule
from e3rl_core.errors import RecipeError
from e3rl_training import sharding


def trainer(**changes: Any) -> Any:
    """A trainer as far as refusals look at it: FSDP2 with vLLM rollouts, unless `changes` say more."""
    plugin = {"fsdp_version": 2, "state_dict_type": "StateDictType.FULL_STATE_DICT"}
    args = {"rollout_engine": "vllm", "optim": "adamw_torch", "allocation": "uniform"}
    for values in (plugin, args):
        values |= {name: changes.pop(name) for name in values.keys() & changes.keys()}
    rule = CreditRule(allocation=args.pop("allocation"))
    return SimpleNamespace(
        is_fsdp_enabled=True,
        is_deepspeed_enabled=False,
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=SimpleNamespace(**plugin))),
        args=SimpleNamespace(credit_rule=lambda: rule, **args),
        model=changes.pop("model", torch.nn.Linear(1, 1)),
    )


def test_fsdp2_with_vllm_rollouts_is_accepted() -> None:
    sharding.refuse_unshardable(trainer())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rollout_engine": "torch"}, r"training\.rollout_engine: .*use 'vllm'"),
        ({"fsdp_version": 1}, r"training\.fsdp_config\.version: .*use 2"),
        ({"state_dict_type": "StateDictType.SHARDED_STATE_DICT"}, "state_dict_type: .*use FULL_STATE_DICT"),
        ({"allocation": "attention"}, r"training\.credit\.allocation: .*'uniform'"),
        ({"optim": "adafactor"}, r"training\.optim: .*'adamw_torch'"),
        ({"model": SimpleNamespace(merge_adapter=None)}, r"model\.lora: .*leave lora out"),
    ],
)
def test_what_a_sharded_model_cannot_do_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        sharding.refuse_unshardable(trainer(**change))


def test_zero3_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "is_deepspeed_zero3_enabled", lambda: True)
    run = SimpleNamespace(is_deepspeed_enabled=True, is_fsdp_enabled=False)
    with pytest.raises(RecipeError, match=r"training\.deepspeed: ZeRO-3 .*FSDP2 with rollout_engine: vllm"):
        sharding.refuse_unshardable(run)
