"""A warm start: seconds from the command to readiness with the model cached, and the memory held then."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.report import BenchmarkError, parser, run, say, spread
from benchmarks.server import Server, serve

RUNS = 3
_MIB = 1 << 20


def measure(args: argparse.Namespace) -> dict[str, Any]:
    runs = 1 if args.quick else args.runs
    if runs < 1:
        raise BenchmarkError("--runs takes at least 1")
    if not args.quick:
        say("a first start, not counted: it fills the model's cache and the machine's")
        with serve("on", args.model):
            pass
    records = []
    for number in range(runs):
        for healing in ("off", "on"):
            with serve(healing, args.model) as server:
                records.append({"healing": healing, **_weigh(server)})
            say(f"start {number + 1} of {runs}, healing {healing}: {records[-1]['seconds']:.1f} s")
    return {**summarise(records), "raw": records}


def _weigh(server: Server) -> dict[str, float]:
    memory = {f"{name}_mib": round(held / _MIB, 1) for name, held in server.memory().items()}
    return {"seconds": round(server.seconds_to_ready, 2), **memory}


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The median start with healing on, its ratio to stock, and the memory of both."""
    figures = {
        figure: {
            healing: spread([record[figure] for record in records if record["healing"] == healing])
            for healing in ("off", "on")
        }
        for figure in ("seconds", "resident_mib", "proportional_mib")
    }
    medians = {figure: {healing: values["median"] for healing, values in of.items()} for figure, of in figures.items()}
    return {
        "targets": {"seconds_to_ready": "< 30"},
        "seconds_to_ready": medians["seconds"]["on"],
        "ratios": {figure: round(median["on"] / median["off"], 3) for figure, median in medians.items()},
        "medians": medians,
        "intervals": figures,
    }


def main() -> int:
    flags = parser("startup", "Warm start of the healing server and of the stock one, eager mode.")
    flags.add_argument("--runs", type=int, default=RUNS, metavar="N", help="Starts of each.")
    return run("startup", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
