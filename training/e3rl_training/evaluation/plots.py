"""The report in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from e3rl_training.evaluation.arms import Arm
from e3rl_training.evaluation.measures import Measurement
from e3rl_training.evaluation.segments import Labelled

#: File names, and what they show.
PLOTS = {
    "accuracy.png": "Accuracy over tokens a problem, 95 % intervals",
    "uncertainty.png": "Uncertainty of right and of wrong answers, and accuracy by uncertainty",
}
#: Where segments are labelled.
SEGMENTS = ("segments.png", "Uncertainty of right and of wrong segments, and precision and recall of erasing")
_BINS = 30


def draw(measured: dict[str, Any], measurement: Measurement, folder: Path) -> None:
    """Draw all of them into a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 6), constrained_layout=True)
    axis.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)  # there are more arms than the usual ten
    _accuracy(axis, measured, measurement.plan.arms)
    figure.savefig(folder / "accuracy.png", dpi=120)
    pyplot.close(figure)

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    source = measurement.plan.base_source
    draws = [(one.u, one.right) for one in measurement.draws(source) if one.u is not None]
    _histogram(axes[0], f"Uncertainty of answers, {source.name}", "mean U of the answer, nats", draws)
    for name, found in measured["uncertainty"].items():
        bins = found["reliability"]
        axes[1].plot(
            [one["u"] for one in bins], [one["accuracy"] for one in bins], marker="o", markersize=3, label=name
        )
    axes[1].set(title="Accuracy by uncertainty", xlabel="mean U of the answer, nats", ylabel="accuracy", ylim=(0, 1.02))
    if measured["uncertainty"]:
        axes[1].legend(fontsize=7)
    figure.savefig(folder / "uncertainty.png", dpi=120)
    pyplot.close(figure)


def _accuracy(axis: Any, measured: dict[str, Any], arms: Sequence[Arm]) -> None:
    colours = {}
    for name, points in measured["curves"].items():
        if len(points) > 1:
            line = axis.plot(
                [one["tokens"] for one in points], [one["accuracy"] for one in points], linewidth=1, alpha=0.6
            )
            colours[name] = line[0].get_color()
    for arm in arms:
        found = measured["arms"][arm.name]
        mean, bars, colour = found["accuracy"]["mean"], _bars(found["accuracy"]), colours.get(arm.family)
        axis.errorbar(found["tokens"], mean, bars, fmt="o", capsize=3, markersize=4, color=colour, label=arm.name)
    axis.set(title="Accuracy over tokens", xlabel="tokens a problem, erased ones included", ylabel="accuracy")
    axis.legend(fontsize=7, ncols=2)


def draw_segments(graded: dict[str, Any], labels: Mapping[str, Sequence[Labelled]], base: str, folder: Path) -> None:
    """U of right and wrong segments; precision over recall, of every threshold on U and of what was done.

    Args:
        graded: the figures by source.
        labels: the segments by source, those without labels empty.
        base: the source whose U is shown, where it is graded.
        folder: where the picture goes.
    """
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    name = base if base in graded else next(iter(graded))
    segments = labels[name]
    _histogram(axes[0], f"Uncertainty of segments, {name}", "U, nats", [(one.u, one.right) for one in segments])
    ordered = sorted(segments, key=lambda one: -one.u)
    wrong = np.cumsum([not one.right for one in ordered])
    if wrong[-1]:
        axes[1].plot(wrong / wrong[-1], wrong / np.arange(1, len(wrong) + 1), linewidth=1, label=f"{name}, U alone")
    for source, found in graded.items():
        if found["precision"] and found["recall"]:
            across, up = found["recall"], found["precision"]
            bars = map(_bars, (up, across))
            axes[1].errorbar(across["mean"], up["mean"], *bars, fmt="o", markersize=4, capsize=3, label=source)
    axes[1].set(
        title="Erasing: precision over recall", xlabel="of wrong first draws, erased", ylabel="of erased, wrong",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
    )  # fmt: skip
    axes[1].legend(fontsize=7)
    figure.savefig(folder / SEGMENTS[0], dpi=120)
    pyplot.close(figure)


def _bars(found: Mapping[str, float]) -> list[list[float]]:
    """An interval as matplotlib takes it; rounding may have put the mean outside."""
    return [[max(found["mean"] - found["low"], 0.0)], [max(found["high"] - found["mean"], 0.0)]]


def _histogram(axis: Any, title: str, what: str, scored: Sequence[tuple[float, bool]]) -> None:
    bins = np.histogram_bin_edges([u for u, _ in scored], _BINS)  # the same for both
    for word, label in ((True, "right"), (False, "wrong")):
        values = [u for u, right in scored if right is word]
        if values:
            axis.hist(values, bins=bins, alpha=0.6, density=True, label=f"{label} ({len(values)})")
    axis.set(title=title, xlabel=what, ylabel="density")
    if scored:
        axis.legend()
