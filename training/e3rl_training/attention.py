"""How much attention the answer paid to each segment: the mass of causal allocation (F9 [reported])."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def segment_mass(model: Any, prompt: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Attention that the last segment's tokens put on each kept segment, averaged over layers and heads.

    The last segment is taken to be the answer; attention to the prompt is left out.

    Args:
        prompt: its token ids.
        model: with `attn_implementation="eager"`: others do not tell their attention.
        lengths: (_S,) tokens of each kept segment.
        tokens: (_T,) of the response, `sum(lengths)` of them.

    Returns:
        (_S,), not normalised.

    Raises:
        ValueError: the model returns no attention.
    """
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            ids = torch.tensor([[*prompt, *tokens]], device=model.device)
            attentions = model(input_ids=ids, output_attentions=True, logits_to_keep=1).attentions
    finally:
        model.train(training)
    if not attentions or attentions[0] is None:
        raise ValueError("attention allocation needs a model loaded with attn_implementation: eager")
    answer = lengths[-1]
    paid = torch.zeros(ids.shape[1], device=ids.device)
    for layer in attentions:  # (1, heads, _T, _T)
        paid += layer[0, :, -answer:].float().mean((0, 1))
    masses = paid[len(prompt) :].split(list(lengths))
    return [float(mass.sum()) for mass in masses]
