"""A tuning's report for a reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from e3rl_training.evaluation.markdown import difference_cell, interval_cell

#: What stands in its place meanwhile.
INCOMPLETE = "# Tuning, incomplete\n\nNothing is reported before all samples are there; the same command goes on.\n"


def markdown(report: Mapping[str, Any]) -> str:
    """`report.md` out of `report.json`."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    settings, held_out = report["settings"], report["held_out"]
    yield f"# Tuning of {settings['model']} on {settings['data']}"
    yield ""
    yield f"`{report['run']['command']}`, {report['run']['date'][:10]}."
    yield ""
    yield f"Found, of {settings['tried']} settings tried at temperature {settings['temperature']:g}:"
    yield ""
    yield f"`{json.dumps(report['found']) if report['found'] else 'the settings that the server has already'}`"
    yield ""
    yield from _verdict(report)
    yield ""
    yield f"## Held out: {held_out['problems']} problems that the search has not seen"
    yield ""
    yield "95 % intervals, bootstrapped over problems, differences paired; * leaves out 0. Gain: accuracy minus that of"
    yield f"plain sampling at {settings['temperature']:g} for the same tokens, by votes on a share of the problems."
    yield ""
    yield "| arm | accuracy | tokens | erased | gain | tuned minus it |"
    yield "|---|---|---|---|---|---|"
    for name, arm in held_out["arms"].items():
        cells = (
            name,
            interval_cell(arm["accuracy"]),
            f"{arm['tokens']:.1f}",
            f"{arm['erased_tokens']:.1f}",
            difference_cell(arm["gain"]),
            difference_cell(arm.get("tuned_minus_this")),
        )
        yield f"| {' | '.join(cells)} |"
    yield from _search(report)


def _verdict(report: Mapping[str, Any]) -> Iterator[str]:
    """What the winner of a search looks like on the problems it has won on, and on others."""
    searched, arms = report["search"], report["held_out"]["arms"]
    yield f"Gain over plain sampling at the same tokens: {searched['gain']:+.3f} on the {searched['problems']} problems"
    yield f"that it was chosen on, {difference_cell(arms['tuned']['gain'])} on others. The first is the best of"
    yield f"{report['settings']['tried']}, and flattered by that; the second is what to expect."
    yield ""
    for name, arm in arms.items():
        if name != "tuned":
            found = arm["tuned_minus_this"]
            word = "better than" if found["mean"] > 0 else "worse than"
            yield f"- Tuned is {word if found['significant'] else 'not to be told from'} {name}."


def _search(report: Mapping[str, Any]) -> Iterator[str]:
    searched = report["search"]
    yield ""
    yield "## Search"
    yield ""
    yield f"Searched: {', '.join(report['settings']['searched'])}."
    yield "After each round the better half goes on to more problems."
    yield ""
    yield "| problems | settings | best gain | median gain |"
    yield "|---|---|---|---|"
    for one in searched["rounds"]:
        gains = sorted(one["gains"].values())
        yield f"| {one['problems']} | {len(gains)} | {gains[-1]:+.3f} | {gains[len(gains) // 2]:+.3f} |"
