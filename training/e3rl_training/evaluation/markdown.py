"""The report for a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from e3rl_training.evaluation.plots import PLOTS, SEGMENTS


def markdown(report: Mapping[str, Any]) -> str:
    """`report.md` out of `report.json`."""
    return "\n".join(_lines(report)) + "\n"


def incomplete(done: int, of: int) -> str:
    """What stands in its place meanwhile."""
    return (
        f"# Evaluation, incomplete\n\n{done} of {of} samples. "
        "Nothing is reported before all are there; the same command goes on.\n"
    )


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    measured, run, settings = report["measured"], report["run"], report["settings"]
    yield f"# Evaluation of {settings['model']} on {settings['data']}"
    yield ""
    yield f"`{run['command']}`, {run['date'][:10]}."
    apart = measured["calibration_problems"]
    kept = f" ({apart} others set thresholds)" if apart else ""
    yield f"{measured['problems']} problems{kept}, {measured['samples']} draws each or more, seed {settings['seed']}."
    yield "Accuracy with 95 % intervals, bootstrapped over problems; differences are paired; * leaves out 0, not"
    yield "corrected for the number of arms. Tokens a problem, erased ones included."
    yield from _arms(measured)
    yield from _equal(measured)
    yield from _uncertainty(measured)
    yield from _segments(measured["segments"])
    yield from _latency(run)
    for name, what in PLOTS.items():
        yield ""
        yield f"![{what}]({name})"


def _arms(measured: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    compared = measured["compared_with"]
    minus = [f"minus {name}" for name in compared.values()]
    yield f"| {' | '.join(['arm', 'accuracy', *minus, 'tokens', 'erased', 'draws', 'pass@k', 'ungradable'])} |"
    yield "|" + "---|" * (7 + len(minus))
    for name, arm in measured["arms"].items():
        passed = f"{arm['pass']['mean']:.3f} (k={arm['pass']['k']})" if "pass" in arm else ""
        ungradable = f"{arm['ungradable']} of {arm['of_draws']}" if "ungradable" in arm else ""
        cells = (
            name,
            interval_cell(arm["accuracy"]),
            *(difference_cell(arm.get(key)) for key in compared),
            f"{arm['tokens']:.1f}",
            f"{arm['erased_tokens']:.1f}",
            f"{arm['draws']:.2f}",
            passed,
            ungradable,
        )
        yield f"| {' | '.join(cells)} |"


def _equal(measured: Mapping[str, Any]) -> Iterator[str]:
    equal = measured["at_healed_tokens"]
    if not equal:
        return
    healed = measured["compared_with"]["minus_healed"]
    yield ""
    yield f"## At the tokens of {healed}: {equal['tokens']:.1f} a problem"
    yield ""
    yield "A rule asks for its next size on as many problems as the tokens allow. Where tokens differ, the rival"
    yield "cannot be had at this price."
    yield ""
    yield f"| rival | its tokens | its accuracy | {healed} minus it |"
    yield "|---|---|---|---|"
    for name, rival in equal["rivals"].items():
        difference = difference_cell(rival["healed_minus_this"])
        yield f"| {name} | {rival['tokens']:.1f} | {rival['accuracy']:.3f} | {difference} |"
    yield ""
    for word, title in ((True, "better than"), (False, "worse than")):
        names = [
            name
            for name, rival in equal["rivals"].items()
            if rival["healed_minus_this"]["significant"] and (rival["healed_minus_this"]["mean"] > 0) == word
        ]
        yield f"- Significantly {title}: {', '.join(names) or 'none'}."
    rest = [name for name, rival in equal["rivals"].items() if not rival["healed_minus_this"]["significant"]]
    yield f"- Not to be told from: {', '.join(rest) or 'none'}."


def _uncertainty(measured: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Uncertainty"
    yield ""
    yield "AUROC of the mean U of an answer for being wrong; 0.5 is no signal."
    yield ""
    yield "| source | AUROC | erased of all draws of segments |"
    yield "|---|---|---|"
    for name, found in measured["uncertainty"].items():
        rank = found["auroc_of_wrong"]
        rate = measured["erase_rates"].get(name)
        shown = "all right or all wrong" if rank is None else f"{rank:.3f}"
        yield f"| {name} | {shown} | {'' if rate is None else f'{rate:.1%}'} |"


def _segments(graded: Mapping[str, Any]) -> Iterator[str]:
    if not graded:
        return
    yield ""
    yield "## Segments against their labels"
    yield ""
    yield "AUROC of the U of kept segments for being wrong. Of first draws: how many of the erased were wrong, which is"
    yield "precision, and how many of the wrong were erased, recall; of plain sources what would have been erased."
    yield ""
    yield "| source | segments | of them wrong | AUROC | first draws erased | of them wrong (precision) | recall |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in graded.items():
        rank = "–" if found["auroc_of_wrong"] is None else f"{found['auroc_of_wrong']:.3f}"
        shares = " | ".join("–" if found[key] is None else interval_cell(found[key]) for key in ("precision", "recall"))
        yield f"| {name} | {found['segments']} | {found['wrong']} | {rank} | {found['flagged']} | {shares} |"
    name, what = SEGMENTS
    yield ""
    yield f"![{what}]({name})"


def _latency(run: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Latency"
    yield ""
    yield "Seconds from request to answer, and to its first token and first final text where it was streamed: medians"
    yield "(95 % quantiles) of single requests, under this evaluation's own load."
    yield ""
    yield "| source | answer | first token | first final text | streamed |"
    yield "|---|---|---|---|---|"
    for name, found in run["latency"].items():
        times = [_times(found.get(key)) for key in ("answer", "first_token", "first_committed")]
        streamed = found["first_token"]["answers"] if "first_token" in found else 0
        yield f"| {name} | {' | '.join(times)} | {streamed} |"


def _times(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['median']:.2f} ({found['p95']:.2f})"


def interval_cell(found: Mapping[str, float]) -> str:
    """A mean with its interval."""
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def difference_cell(found: Mapping[str, Any] | None) -> str:
    """A difference with its interval, marked where that leaves out 0; a dash for None."""
    if found is None:
        return "–"
    return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}){' *' if found['significant'] else ''}"
