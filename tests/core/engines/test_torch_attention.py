"""Attention without repeated keys: the same numbers, and only for as long as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.integrations import sdpa_attention

from e3rl_core.engines.torch_attention import unrepeated


@pytest.fixture
def model() -> Any:
    """Four query heads on two key-value heads."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.4)
    return LlamaForCausalLM(config).eval()


def prompt_and_step(model: Any) -> torch.Tensor:
    """Logits after a padded prompt and one token more. (2, 2, 64)."""
    cache = DynamicCache()
    seen = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    tokens = torch.arange(10).view(2, 5)
    with torch.no_grad():
        prompt = model(tokens[:, :4], attention_mask=seen[:, :4], past_key_values=cache).logits[:, -1]
        step = model(tokens[:, 4:], attention_mask=seen, past_key_values=cache).logits[:, -1]
    return torch.stack([prompt, step], 1)


def test_the_logits_are_those_of_the_usual_attention(model: Any) -> None:
    usual = prompt_and_step(model)
    with unrepeated(model):
        assert torch.allclose(prompt_and_step(model), usual, atol=1e-5)


def test_a_masked_step_repeats_no_keys(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    repeat = sdpa_attention.repeat_kv
    monkeypatch.setattr(sdpa_attention, "repeat_kv", lambda x, n: (lengths.append(x.shape[2]), repeat(x, n))[1])
    prompt_and_step(model)
    assert 5 in lengths
    lengths.clear()
    with unrepeated(model):
        prompt_and_step(model)
    assert set(lengths) == {4}


def test_the_model_attends_as_before_when_it_fails(model: Any) -> None:
    with pytest.raises(ValueError, match="stop"), unrepeated(model):
        raise ValueError("stop")
    assert model.config._attn_implementation == "sdpa"


def test_other_attention_is_left_alone(model: Any) -> None:
    model.set_attn_implementation("eager")
    with unrepeated(model):
        assert model.config._attn_implementation == "eager"
