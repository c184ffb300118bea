"""Where a segment ends: by length, and at the text boundaries that token ids carry."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from e3rl_core.policy import SegmentRule

_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSERS = "\"'”’)]}*_»"


class Boundary(IntEnum):
    """What a token's text ends, weakest first."""

    NONE = 0
    SENTENCE = 1
    LINE = 2


_NEEDED = {"tokens": Boundary.LINE + 1, "sentence": Boundary.SENTENCE, "line": Boundary.LINE}


def boundary_of(text: str) -> Boundary:
    """The boundary that a token with this text ends."""
    if "\n" in text:
        return Boundary.LINE
    if text.rstrip().rstrip(_CLOSERS).endswith(_SENTENCE_ENDS):
        return Boundary.SENTENCE
    return Boundary.NONE


def boundary_table(token_texts: Iterable[str]) -> bytes:
    """One byte per token id, so that the per-token look-up is an index, not text handling. Shape: (vocabulary,)."""
    return bytes(boundary_of(text) for text in token_texts)


class Segmenter:
    """Decides, token by token, whether the open segment ends here. Stateless but for the rule."""

    __slots__ = ("_min", "_needed", "longest")

    def __init__(self, rule: SegmentRule) -> None:
        self._min = rule.min_tokens
        self.longest = rule.max_tokens
        self._needed = int(_NEEDED[rule.unit])

    def ends(self, length: int, boundary: int) -> bool:
        """Whether a segment of `length` tokens, whose last token ends `boundary`, is complete."""
        return length >= self.longest or (boundary >= self._needed and length >= self._min)
