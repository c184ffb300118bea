"""The starting policy of a run: a model and its tokenizer, and its stand-in for a dry run."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from e3rl_core.embedded.model import embedded_model
from e3rl_core.errors import RecipeError
from e3rl_core.paths import cache_folder
from e3rl_training import warmup
from e3rl_training.recipe import ModelSpec

#: The name that a recipe calls the embedded model.
EMBEDDED = "smollm2"

#: What the stand-in of a dry run is cut down to; the architecture's other settings stay its defaults.
_SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
}


def load(spec: ModelSpec, seed: int) -> tuple[Any, Any]:
    """The model, in training dtype, and its tokenizer.

    Raises:
        RecipeError: it cannot be had; names `model.name`.
    """
    folder = locate(spec, seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=spec.revision)
        model = AutoModelForCausalLM.from_pretrained(
            folder, revision=spec.revision, dtype=getattr(torch, spec.dtype), attn_implementation=spec.attention
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(spec, error) from None
    return model, _with_padding(tokenizer)


def config(spec: ModelSpec, seed: int) -> dict[str, Any]:
    """The model's configuration, for what is to be known before its weights are loaded.

    Raises:
        RecipeError: as for `load`.
    """
    try:
        found = AutoConfig.from_pretrained(locate(spec, seed), revision=spec.revision)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(spec, error) from None
    return dict(found.to_dict())


def locate(spec: ModelSpec, seed: int) -> str:
    """A folder or Hub name; built-in models are made if they are not there yet (a minute)."""
    if spec.name in warmup.POLICIES:
        return str(warmup.starting_policy(spec.name, cache_folder() / "policies", seed))
    if spec.name == EMBEDDED:
        return str(embedded_model())
    return spec.name


def stand_in(spec: ModelSpec) -> tuple[Any, Any]:
    """Two random layers of the recipe's architecture, with the mod-chain task's tokenizer: needs no Hub.

    Raises:
        RecipeError: transformers knows no such architecture, or the recipe names none and the model is not at hand.
    """
    name = spec.architecture or ("llama" if spec.name in warmup.POLICIES else None)
    if name is None:
        name = config(spec, 0)["model_type"]
    tokenizer = warmup.make_tokenizer()
    try:
        small = AutoConfig.for_model(name, vocab_size=len(tokenizer), **_SMALL)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(small, attn_implementation=spec.attention)
    except (ValueError, KeyError) as error:
        raise RecipeError(
            f"model.architecture: {name!r} is no causal language model of transformers ({error})"
        ) from None
    model.config.pad_token_id, model.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def prompt_ids(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    """Token ids of plain text, or of messages by the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(encoded["input_ids"])


def _with_padding(tokenizer: Any) -> Any:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _unavailable(spec: ModelSpec, error: Exception) -> RecipeError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    built_in = ", ".join([*warmup.POLICIES, EMBEDDED])
    return RecipeError(
        f"model.name: {spec.name!r} cannot be loaded ({reason}); use a built-in ({built_in}), a model folder, or a Hub "
        "name this machine can reach"
    )
