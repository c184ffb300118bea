"""The served comparison: votes, intervals, and what equal tokens means."""

from __future__ import annotations

import pytest

from benchmarks.training.served import Answered, majority, summarise


def test_a_majority() -> None:
    assert majority(["3", "4", "4"]) == "4"
    assert majority(["3", "4", "5"]) == "3"


def test_the_vote_is_mixed_to_the_healed_tokens() -> None:
    """Plain draws 36, a vote 108: at 54 a quarter of all problems is voted on."""
    plain = [Answered(right, 36, 0) for right in (True, False, False, False)]
    vote = [Answered(right, 108, 0) for right in (True, True, True, False)]
    healed = [Answered(right, 54, 18) for right in (True, True, False, False)]
    found = summarise({"plain": plain, "vote": vote, "healed": healed})
    mixed = found["vote_at_healed_tokens"]
    assert mixed["tokens"] == found["healed"]["tokens"] == 54
    assert mixed["accuracy"]["mean"] == pytest.approx(0.25 + 0.25 * 0.5)
    assert found["plain"]["healed_minus_this"]["mean"] == 0.25
    assert mixed["healed_minus_this"]["mean"] == pytest.approx(0.125)
