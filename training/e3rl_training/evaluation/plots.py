"""The report in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e3rl_training.evaluation.arms import BASE, Arm
from e3rl_training.evaluation.measures import Measurement
from e3rl_training.evaluation.samples import Sample

#: File names, and what they show.
PLOTS = {
    "accuracy.png": "Accuracy over tokens a problem, 95 % intervals",
    "uncertainty.png": "Uncertainty of right and of wrong answers, and accuracy by uncertainty",
}
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
    source = next((one for one in measurement.plan.sources if one == BASE.source), measurement.plan.sources[0])
    draws = [one for one in measurement.draws(source) if one.u is not None]
    _histogram(axes[0], source.name, draws)
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
        mean, low, high = (found["accuracy"][key] for key in ("mean", "low", "high"))
        bars = [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]
        colour = colours.get(arm.family)
        axis.errorbar(found["tokens"], mean, bars, fmt="o", capsize=3, markersize=4, color=colour, label=arm.name)
    axis.set(title="Accuracy over tokens", xlabel="tokens a problem, erased ones included", ylabel="accuracy")
    axis.legend(fontsize=7, ncols=2)


def _histogram(axis: Any, name: str, draws: Sequence[Sample]) -> None:
    for right, label in ((True, "right"), (False, "wrong")):
        values = [draw.u for draw in draws if draw.right is right]
        if values:
            axis.hist(values, bins=_BINS, alpha=0.6, density=True, label=f"{label} ({len(values)})")
    axis.set(title=f"Uncertainty of answers, {name}", xlabel="mean U of the answer, nats", ylabel="density")
    if draws:
        axis.legend()
