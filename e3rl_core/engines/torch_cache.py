"""A key-value cache whose rows come, are cut, continued and leave independently of each other.

Erasing makes a batch ragged: each row has its own length. A token's column is its place in its row, so cutting a row
is shortening its length, and its next token is written over what was cut:

    column    0  1  2  3  4  5
    row 0     a  b  c  d  e  f      length 6
    row 1     h  i  x  x  .  .      length 2: x was erased, the next token goes to column 2

No step looks past the longest row, nothing is copied from step to step (memory grows by `CHUNK` columns at a time), and
a row that leaves gives its seat to the last one. Which columns are a row's own is said by a mask: that is what every
attention implementation takes. Layers that keep anything but one column a token (sliding windows, recurrent states)
are refused, and so are models that do not let us say where a token stands.

Notation: _B rows, _W columns, _T tokens of a row, _V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

from e3rl_core.errors import EngineRefusal

#: Columns that memory grows by.
CHUNK = 64

#: Keys and values of some columns of a row, (heads, columns, head size) each.
_Columns = tuple[torch.Tensor, torch.Tensor]


def refuse_unhealable(model: Any) -> None:
    """Refuse models whose cache is not one column a token.

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
        self._layers: list[_Layer] = []
        self._lengths: list[int] = []
        self._aside: list[dict[int, list[_Columns]]] = []

    @property
    def width(self) -> int:
        """Columns that a step looks at, _W: the longest row's length."""
        return max(self._lengths, default=0)

    def admit(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append a row for each prompt, run it, and return the logits after it. Shape: (_B,) to (_B, _V), float32."""
        longest = max(len(prompt) for prompt in prompts)
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)  # padded on the left: all end in one column
        seen = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            seen[row, longest - len(prompt) :] = True
        cache = DynamicCache()
        logits = self._forward(cache, tokens, seen, (seen.long().cumsum(-1) - 1).clamp(min=0))
        self._layers = self._layers or [_Layer(layer.keys, layer.values) for layer in cache.layers]
        first = len(self._lengths)
        self._lengths += [len(prompt) for prompt in prompts]
        self._aside += [{} for _ in prompts]
        for mine, layer in zip(self._layers, cache.layers, strict=True):
            mine.reserve(len(self._lengths), longest)
            for row, prompt in enumerate(prompts):
                mine.write(first + row, 0, (layer.keys[row, :, -len(prompt) :], layer.values[row, :, -len(prompt) :]))
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row and return the logits after it. Shape: (_B,) to (_B, _V), float32."""
        columns = torch.tensor(self._lengths)
        self._lengths = [length + 1 for length in self._lengths]
        seen = torch.arange(self.width) <= columns.unsqueeze(-1)
        rows, places = torch.arange(len(tokens)).to(self._model.device), columns.to(self._model.device)
        for layer in self._layers:
            layer.reserve(len(tokens), self.width)
            layer.expect(rows, places, self.width)
        return self._forward(
            Cache(layers=self._layers), torch.tensor(tokens).unsqueeze(-1), seen, columns.unsqueeze(-1)
        )

    def cut(self, row: int, length: int, *, aside: int | None = None) -> None:
        """Keep the first `length` tokens of a row; with `aside`, the rest can be brought back under that key."""
        if aside is not None:
            self._aside[row][aside] = [layer.read(row, length, self._lengths[row]) for layer in self._layers]
        self._lengths[row] = length

    def bring_back(self, row: int, key: int) -> None:
        """Append to a row what was cut from the same place under `key`."""
        columns = self._aside[row][key]
        for layer, kept in zip(self._layers, columns, strict=True):
            layer.write(row, self._lengths[row], kept)
        self._lengths[row] += columns[0][0].shape[1]

    def forget_aside(self, row: int) -> None:
        """Nothing cut from this row will be brought back any more."""
        self._aside[row].clear()

    def leave(self, row: int) -> None:
        """Let a row go; the last one takes its place and its number."""
        last = len(self._lengths) - 1
        if row < last:
            for layer in self._layers:
                layer.write(row, 0, layer.read(last, 0, self._lengths[last]))
            self._lengths[row], self._aside[row] = self._lengths[last], self._aside[last]
        del self._lengths[last], self._aside[last]

    def _forward(self, cache: Cache, tokens: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        device = self._model.device
        output = self._model(
            input_ids=tokens.to(device),
            attention_mask=seen.long().to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


class _Layer(CacheLayerMixin):
    """One layer's keys and values, (rows, heads, columns, head size); some rows and columns may be spare."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = key_states[:0, :, :0], value_states[:0, :, :0]
        self.is_initialized = True

    def reserve(self, rows: int, columns: int) -> None:
        """Have room for so many. What is spare is finite: a masked column has weight 0, and 0 times nan is nan."""
        if rows > self.keys.shape[0] or columns > self.keys.shape[2]:
            columns = -(-columns // CHUNK) * CHUNK
            self.keys, self.values = (_grown(tensor, rows, columns) for tensor in (self.keys, self.values))

    def read(self, row: int, start: int, stop: int) -> _Columns:
        """A copy of a row's columns, (heads, columns, head size) each."""
        return self.keys[row, :, start:stop].clone(), self.values[row, :, start:stop].clone()

    def write(self, row: int, start: int, columns: _Columns) -> None:
        """Put columns into a row."""
        for tensor, new in zip((self.keys, self.values), columns, strict=True):
            tensor[row, :, start : start + new.shape[1]] = new

    def expect(self, rows: torch.Tensor, columns: torch.Tensor, width: int) -> None:
        """The next `update` brings one token for each of the first rows, for these columns; (_B,) both."""
        self._rows, self._columns, self._width = rows, columns, width

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[self._rows, :, self._columns] = key_states[:, :, 0]
        self.values[self._rows, :, self._columns] = value_states[:, :, 0]
        return self.keys[: len(self._rows), :, : self._width], self.values[: len(self._rows), :, : self._width]

    def get_seq_length(self) -> int:
        return self._width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._width, 0

    def get_max_length(self) -> int:
        return -1


def _grown(tensor: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The same with at least so many rows and columns. (rows, heads, columns, head size)."""
    had_rows, heads, had_columns, size = tensor.shape
    grown = tensor.new_zeros(max(rows, had_rows), heads, max(columns, had_columns), size)
    grown[:had_rows, :, :had_columns] = tensor
    return grown
