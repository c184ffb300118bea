"""A key-value cache whose rows are cut and continued independently of each other.

Erasing makes a batch ragged: each row has its own history. The cache stays one rectangle all the same. Every step
writes every row's newest token at the rectangle's next column, and a row is the LIST of columns that hold its tokens,
in order:

    column          0  1  2  3  4  5  6
    row 0           a  b  c  d  e  f  g      columns 0 1 2 3 4 5 6
    row 1           -  h  i  x  x  j  k      columns 1 2 5 6: x was erased, - is padding

Cutting a row is forgetting columns, and bringing a cut draw back is remembering them: no tensor moves and nothing is
computed again. It is right because attention is a sum over the unmasked columns in any layout: a column knows its
token's place from the position id it was written under, not from where it lies. Layers that do look at where it lies
(sliding windows, recurrent states, models without position ids) are refused. Per-row lengths with an index copy would
waste no column, but would need every attention implementation to take a length per row; masks they all take.
Forgotten columns are squeezed out when a row leaves, and whenever more than `SLACK` have gathered.

Notation: _B rows, _W columns, _T tokens of a row, _V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from e3rl_core.errors import EngineRefusal

#: Columns no row needs that are put up with before the cache is squeezed.
SLACK = 64


def refuse_unhealable(model: Any) -> None:
    """Refuse models whose cache cannot be masked column by column.

    Raises:
        EngineRefusal: naming what stands in the way.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True) and not kinds
    reasons = [
        (bool(getattr(model, "_is_stateful", False)), "a recurrent state"),
        (bool(model.config.is_encoder_decoder), "an encoder"),
        (bool(kinds - {"full_attention"}), f"layers of type {', '.join(sorted(kinds - {'full_attention'}))}"),
        (bool(windowed), "a sliding attention window"),
        ("position_ids" not in inspect.signature(model.forward).parameters, "no position ids"),
    ]
    found = [name for applies, name in reasons if applies]
    if found:
        raise EngineRefusal(f"{type(model).__name__} has {' and '.join(found)}: its cache cannot be rolled back")


class RaggedCache:
    """The cache of one batch; rows are numbered as they stand in it now."""

    def __init__(self, model: Any) -> None:
        refuse_unhealable(model)
        self._model = model
        self._cache = DynamicCache()
        self._columns: list[list[int]] = []
        self._aside: list[dict[int, list[int]]] = []
        self._seen = torch.zeros(0, 0, dtype=torch.bool)

    @property
    def width(self) -> int:
        """Columns in the rectangle, _W."""
        return int(self._seen.shape[1])

    def length(self, row: int) -> int:
        """Tokens that `row` attends to."""
        return len(self._columns[row])

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run the prompts, padded on the left, and return the logits after each. Shape: (_B, _V), float32."""
        longest = max(len(prompt) for prompt in prompts)
        device = self._model.device
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        self._seen = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            self._seen[row, longest - len(prompt) :] = True
            self._columns.append(list(range(longest - len(prompt), longest)))
            self._aside.append({})
        positions = (self._seen.long().cumsum(-1) - 1).clamp(min=0)
        self._seen = self._seen.to(device)
        return self._forward(tokens, positions)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row and return the logits after it. Shape: (_B,) to (_B, _V), float32."""
        positions = torch.tensor([[len(columns)] for columns in self._columns])
        for columns in self._columns:
            columns.append(self.width)
        self._seen = torch.nn.functional.pad(self._seen, (0, 1), value=True)
        return self._forward(torch.tensor(tokens).unsqueeze(-1), positions)

    def cut(self, row: int, length: int, *, aside: int | None = None) -> None:
        """Keep the first `length` tokens of a row; with `aside`, the rest can be brought back under that key."""
        gone = self._columns[row][length:]
        del self._columns[row][length:]
        self._seen[row, gone] = False
        if aside is not None:
            self._aside[row][aside] = gone

    def bring_back(self, row: int, key: int) -> None:
        """Append to a row what was cut from the same place under `key`."""
        columns = self._aside[row][key]
        self._columns[row].extend(columns)
        self._seen[row, columns] = True

    def forget_aside(self, row: int) -> None:
        """Nothing cut from this row will be brought back any more."""
        self._aside[row].clear()

    def keep(self, rows: Sequence[int]) -> None:
        """Let the rows not listed leave; the others are numbered anew, in the order listed."""
        longest = max((len(self._needed(row)) for row in rows), default=0)
        if len(rows) < len(self._columns) or self.width > longest + SLACK:
            self._squeeze(rows, longest)

    def _needed(self, row: int) -> list[int]:
        return self._columns[row] + [column for columns in self._aside[row].values() for column in columns]

    def _squeeze(self, rows: Sequence[int], width: int) -> None:
        device = self._seen.device
        index = torch.zeros(len(rows), width, dtype=torch.long)  # padding repeats column 0; it stays unseen
        moved: list[dict[int, int]] = []
        for new, row in enumerate(rows):
            needed = self._needed(row)
            index[new, : len(needed)] = torch.tensor(needed)
            moved.append({column: place for place, column in enumerate(needed)})
        pick = torch.tensor(rows, dtype=torch.long, device=device).unsqueeze(-1)
        index = index.to(device)
        for layer in self._cache.layers:  # (_B, heads, _W, head size); indexing moves the heads last but one
            layer.keys = layer.keys[pick, :, index].transpose(1, 2).contiguous()
            layer.values = layer.values[pick, :, index].transpose(1, 2).contiguous()
        self._columns = [[moved[new][column] for column in self._columns[row]] for new, row in enumerate(rows)]
        self._aside = [
            {key: [moved[new][column] for column in columns] for key, columns in self._aside[row].items()}
            for new, row in enumerate(rows)
        ]
        self._seen = torch.zeros(len(rows), width, dtype=torch.bool, device=device)
        for row, columns in enumerate(self._columns):
            self._seen[row, columns] = True

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        device = self._model.device
        output = self._model(
            input_ids=tokens.to(device),
            attention_mask=self._seen.long(),
            position_ids=positions.to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits
