"""Attention of one new token a row, for models whose query heads share key-value heads.

Under a mask Hugging Face's `sdpa` copies every key and value once for each query head that reads it, every step: at 32
rows of 100 tokens that is a fifth of a step of SmolLM2 on CPUs. Ragged rows are always masked. But heads that share
keys are to one new token what more tokens were: queries over the same keys. So they are passed as queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "e3rl_sdpa"


@contextmanager
def unrepeated(model: Any) -> Iterator[None]:
    """Let a model that attends by `sdpa` do it without copies as long as this is open; others are left as they are."""
    if model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Hugging Face's attention interface. (_B, heads, tokens, size) to (_B, tokens, heads, size)."""
    rows, heads, tokens, size = query.shape
    if tokens > 1 or position_bias is not None or (attention_mask is not None and attention_mask.shape[1] > 1):
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, position_bias=position_bias, **kwargs
        )
        return attended
    queries = query.view(rows, key.shape[1], -1, size)
    output = torch.nn.functional.scaled_dot_product_attention(
        queries, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.reshape(rows, 1, heads, value.shape[-1]), None
