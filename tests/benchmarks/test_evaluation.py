"""What an evaluation over several checkpoints makes of theirs, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.evaluation import summarise


def report(healed: float, plain: float, auroc: float | None = 0.8) -> dict[str, Any]:
    def arm(mean: float, tokens: float, **more: Any) -> dict[str, Any]:
        return {"accuracy": {"mean": mean}, "tokens": tokens, "erased_tokens": tokens - 30, **more}

    arms = {"plain@1.0": arm(plain, 30.0), "healed@1.0": arm(healed, 36.0, minus_plain={"mean": healed - plain})}
    rival = {"tokens": 30.0, "accuracy": plain, "healed_minus_this": {"mean": healed - plain}}
    uncertainty = {"plain@1.0": {"auroc_of_wrong": auroc}}
    return {
        "measured": {"arms": arms, "at_healed_tokens": {"rivals": {"plain@1.0": rival}}, "uncertainty": uncertainty}
    }


def test_differences_are_paired_by_checkpoint() -> None:
    """Accuracies that differ a lot between checkpoints, and differences that do not: the difference is significant."""
    found = summarise([report(0.51, 0.40), report(0.71, 0.60), report(0.92, 0.80)])
    difference = found["arms"]["healed@1.0"]["minus_plain"]
    assert difference["mean"] == pytest.approx(0.1133, abs=1e-4)
    assert difference["significant"]
    assert found["arms"]["healed@1.0"]["accuracy"]["half_width"] > 0.4
    assert found["at_healed_tokens"]["plain@1.0"]["healed_minus_this"] == difference
    assert found["arms"]["healed@1.0"]["erased_tokens"]["mean"] == 6.0


def test_an_auroc_that_a_checkpoint_lacks_is_left_out() -> None:
    assert "plain@1.0" not in summarise([report(0.5, 0.4), report(0.5, 1.0, auroc=None)])["auroc_of_wrong"]
