"""What of TRL's trainer is touched: each name is there, and means what it meant."""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any

import pytest
from transformers import Trainer
from trl import GRPOTrainer

from e3rl_training.trainer import TOUCHED, E3RLTrainer

#: Set by `GRPOTrainer.__init__` or its base, not on the class.
_SET_BY_INIT = {
    "_metrics",
    "_tokenizer",
    "eos_token_ids",
    "is_deepspeed_enabled",
    "is_fsdp_enabled",
    "mask_truncated_completions",
    "max_completion_length",
    "num_generations",
    "num_generations_eval",
    "reward_funcs",
    "reward_weights",
    "scale_rewards",
}


def test_the_version_is_the_one_it_was_written_for() -> None:
    assert metadata.version("trl").startswith("1.16.")


@pytest.mark.parametrize("name", sorted(set(TOUCHED) - _SET_BY_INIT))
def test_methods(name: str) -> None:
    assert callable(getattr(GRPOTrainer, name))


@pytest.mark.parametrize("name", sorted(_SET_BY_INIT))
def test_attributes(name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(GRPOTrainer.__init__) + inspect.getsource(Trainer)


def test_everything_private_that_is_used_is_listed() -> None:
    """A `self._name` of the trainer that GRPOTrainer or its bases define is TRL's."""
    import ast
    import textwrap

    tree = ast.parse(textwrap.dedent(inspect.getsource(E3RLTrainer)))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    source = inspect.getsource(GRPOTrainer.__init__)
    theirs = {
        name for name in used if name.startswith("_") and (hasattr(GRPOTrainer, name) or f"self.{name} = " in source)
    }
    assert theirs <= set(TOUCHED)


def signature_of(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)


def test_signatures() -> None:
    assert signature_of(GRPOTrainer._generate_and_score_completions) == ["self", "inputs"]
    assert signature_of(GRPOTrainer._calculate_rewards)[1:4] == ["inputs", "prompts", "completions"]
    assert signature_of(GRPOTrainer._save_checkpoint) == ["self", "model", "trial"]
    assert "rollout_func" in signature_of(GRPOTrainer.__init__)


def test_advantages_may_be_per_token_and_the_mask_is_env_mask() -> None:
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert "advantages.dim() == 1" in source
    assert "tool_mask" in source
    assert "num_items_in_batch" in source
