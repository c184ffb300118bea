"""`e3rl eval` on checkpoints that differ in their seed alone: each arm's mean over them, and its interval.

One evaluation's own intervals are over problems; these are Student's, over checkpoints, and tell what holds for
policies made so, not for one of them. Each is asked the same problems. Evaluations are kept
in `--runs`; what is there already is not run again, and one that broke off goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import BenchmarkError, interval, parser, run, say, significant

#: For models of a few megabytes on CPUs.
SERVER = shlex.split("--dtype float32 --max-num-seqs 64 --kv-cache-memory-bytes 256M --disable-uvicorn-access-log")

Report = dict[str, Any]


def summarise(reports: Sequence[Report]) -> dict[str, Any]:
    """Over checkpoints: every arm, healed's rivals at its tokens, how well U tells wrong answers from right ones."""
    measured = [report["measured"] for report in reports]
    arms = {name: _arm([one["arms"][name] for one in measured]) for name in measured[0]["arms"]}
    found: dict[str, Any] = {"arms": arms}
    at_equal = [one["at_healed_tokens"]["rivals"] for one in measured if one.get("at_healed_tokens")]
    if at_equal:
        found["at_healed_tokens"] = {
            name: {
                "tokens": interval([one[name]["tokens"] for one in at_equal]),
                "accuracy": interval([one[name]["accuracy"] for one in at_equal]),
                "healed_minus_this": significant([one[name]["healed_minus_this"]["mean"] for one in at_equal]),
            }
            for name in at_equal[0]
        }
    sources = [one["uncertainty"] for one in measured]
    known = {name: [one[name]["auroc_of_wrong"] for one in sources] for name in sources[0]}
    found["auroc_of_wrong"] = {name: interval(found) for name, found in known.items() if None not in found}
    return found


def _arm(mine: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "accuracy": interval([one["accuracy"]["mean"] for one in mine]),
        "tokens": interval([one["tokens"] for one in mine]),
        "erased_tokens": interval([one["erased_tokens"] for one in mine]),
    }
    for difference in ("minus_plain", "minus_healed"):
        if difference in mine[0]:
            found[difference] = significant([one[difference]["mean"] for one in mine])
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.quick:
        args.checkpoints, args.limit, args.samples = args.checkpoints[:1], 5, 1
    reports = []
    for number, checkpoint in enumerate(args.checkpoints, 1):
        reports.append(_evaluate(checkpoint, args))
        healed = reports[-1]["measured"]["arms"].get("healed@1.0", {"accuracy": {"mean": float("nan")}})
        say(f"{number} of {len(args.checkpoints)}: {checkpoint.name}, healed {healed['accuracy']['mean']:.3f}")
    return {"summary": summarise(reports), "raw": reports}


def _evaluate(checkpoint: Path, args: argparse.Namespace) -> Report:
    if not (checkpoint / "config.json").is_file():
        raise BenchmarkError(f"--checkpoints: {checkpoint} is no model folder")
    asked = [
        "--model",
        str(checkpoint),
        "--data",
        args.data,
        "--limit",
        str(args.limit),
        "--samples",
        str(args.samples),
    ]
    asked += ["--arms", args.arms] if args.arms else []
    digest = hashlib.sha256(shlex.join([*asked, *SERVER]).encode()).hexdigest()[:8]
    folder = args.runs / "-".join([*checkpoint.resolve().parts[-2:], digest])
    kept = folder / "report.json"
    if not kept.is_file() or not json.loads(kept.read_text("utf-8"))["complete"]:
        command = [sys.executable, "-m", "e3rl_server", "eval", *asked, "-o", str(folder), "--", *SERVER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BenchmarkError(f"{checkpoint}: {last}")
    report: Report = json.loads(kept.read_text("utf-8"))
    return report


def main() -> int:
    flags = parser("evaluation", "e3rl eval over checkpoints of several seeds.")
    flags.add_argument(
        "--checkpoints", type=Path, nargs="+", required=True, metavar="FOLDER", help="One for each seed."
    )
    flags.add_argument("--data", default="modchain", metavar="NAME", help="As of `e3rl eval`.")
    flags.add_argument("--arms", metavar="ARMS", help="As of `e3rl eval`.")
    flags.add_argument("--limit", type=int, default=75, metavar="N", help="Problems, a fifth of them for thresholds.")
    flags.add_argument("--samples", type=int, default=4, metavar="N", help="Draws for each.")
    flags.add_argument("--runs", type=Path, default=Path("build/evaluation-runs"), metavar="DIR", help="Evaluations.")
    return run("evaluation", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
