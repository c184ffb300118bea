"""The end of a run in figures and in a picture: `report.json` and `curves.png`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Panels of the picture: title, and the metrics drawn in it.
_PANELS = (
    ("Reward", ("reward", "e3rl/healed_reward", "e3rl/plain_reward")),
    ("Shares", ("e3rl/erased_share", "frac_reward_zero_std", "e3rl/erase_precision")),
    ("Uncertainty, nats", ("e3rl/uncertainty", "e3rl/threshold")),
    ("Entropy, nats", ("entropy",)),
)
_TAIL = 10


def last_means(records: Sequence[dict[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    """Means of metrics over the last records that have them."""
    means = {}
    for metric in metrics:
        values = _values(records, metric)[-_TAIL:]
        if values:
            means[metric] = math.fsum(value for _, value in values) / len(values)
    return means


def headline(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The metrics of all panels at the end of the run."""
    return last_means(records, [metric for _, metrics in _PANELS for metric in metrics])


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write `report.json` in one go."""
    half = folder / f".report.{os.getpid()}.tmp"
    half.write_text(json.dumps(report, indent=2, default=str) + "\n", "utf-8")
    os.replace(half, folder / "report.json")


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the run's curves over all tokens it drew, erased ones included."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6), constrained_layout=True)
    drawn = _drawn(records)
    for axis, (title, metrics) in zip(axes.flat, _PANELS, strict=True):
        for metric in metrics:
            points = [(drawn[step], value) for step, value in _values(records, metric) if step in drawn]
            if points:
                axis.plot(*zip(*points, strict=True), label=metric.removeprefix("e3rl/").replace("_", " "))
        axis.set_title(title)
        axis.set_xlabel("tokens drawn")
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _values(records: Sequence[dict[str, Any]], metric: str) -> list[tuple[int, float]]:
    return [(record["step"], record[metric]) for record in records if isinstance(record.get(metric), int | float)]


def _drawn(records: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Tokens drawn up to each step that has a record of them."""
    total, drawn = 0.0, {}
    before = 0
    for step, tokens in _values(records, "e3rl/drawn_tokens"):
        total += tokens * (step - before)  # a record holds the mean over the steps since the one before
        drawn[step], before = total, step
    return drawn
