"""Where segments end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3rl_core.policy import SegmentRule
from e3rl_core.segmentation import Boundary, Segmenter, boundary_of, boundary_table


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ("word", Boundary.NONE),
        ("", Boundary.NONE),
        (" ", Boundary.NONE),
        (",", Boundary.NONE),
        (".", Boundary.SENTENCE),
        ("end. ", Boundary.SENTENCE),
        ('."', Boundary.SENTENCE),
        ("?)", Boundary.SENTENCE),
        ("!**", Boundary.SENTENCE),
        ("。", Boundary.SENTENCE),
        ("…", Boundary.SENTENCE),
        ('"', Boundary.NONE),
        ("3.5", Boundary.NONE),
        ("\n", Boundary.LINE),
        (".\n\n", Boundary.LINE),
    ],
)
def test_boundary_of(text: str, boundary: Boundary) -> None:
    assert boundary_of(text) == boundary


def test_the_table_holds_one_byte_per_token() -> None:
    assert list(boundary_table(["a", ".", "\n"])) == [Boundary.NONE, Boundary.SENTENCE, Boundary.LINE]


@pytest.mark.parametrize(
    ("unit", "ends_at"),
    [
        ("tokens", {Boundary.NONE: False, Boundary.SENTENCE: False, Boundary.LINE: False}),
        ("sentence", {Boundary.NONE: False, Boundary.SENTENCE: True, Boundary.LINE: True}),
        ("line", {Boundary.NONE: False, Boundary.SENTENCE: False, Boundary.LINE: True}),
    ],
)
def test_which_boundaries_a_unit_ends_at(unit: str, ends_at: dict[Boundary, bool]) -> None:
    rule = Segmenter(SegmentRule.model_validate({"unit": unit, "min_tokens": 2, "max_tokens": 9}))
    assert {boundary: rule.ends(5, boundary) for boundary in Boundary} == ends_at


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 120), st.sampled_from(list(Boundary)))
def test_lengths_bound_every_segment(shortest: int, more: int, length: int, boundary: Boundary) -> None:
    rule = Segmenter(SegmentRule(unit="sentence", min_tokens=shortest, max_tokens=shortest + more))
    if length < shortest:
        assert not rule.ends(length, boundary)
    if length >= shortest + more:
        assert rule.ends(length, boundary)
