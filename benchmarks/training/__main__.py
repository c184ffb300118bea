"""E3RL against GRPO at equal generated tokens, erased and continued ones included, on the mod-chain task.

Every run is a process of its own and leaves a file and its last checkpoint in `--runs`; what is there already is not
run again. Seeds are paired: the same seed is the same starting policy, the same problems in the same order. Intervals
are Student's, over seeds; an arm differs from grpo where the interval of the paired differences leaves out 0.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from benchmarks.report import BenchmarkError, interval, parser, run, say, significant
from benchmarks.training.arms import ARMS, MAIN

POLICIES = ("modchain-s1", "modchain-s2")
#: Sampled accuracy above the start's that "tokens to the target" asks for.
TARGET_GAIN = 0.15

#: Freed blocks are kept, not given back: a language model's step asks for the same gigabytes every time.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
}

Result = dict[str, Any]


def tokens_to(points: Sequence[dict[str, float]], target: float) -> float | None:
    """Tokens at which a curve first reaches the target, between its points in a straight line; None if it does not."""
    for before, after in pairwise(points):
        if after["sampled"] >= target > before["sampled"]:
            share = (target - before["sampled"]) / (after["sampled"] - before["sampled"])
            return before["tokens"] + share * (after["tokens"] - before["tokens"])
    return None


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """Per starting policy and arm: accuracy, its difference to grpo, and the rest of what was asked."""
    summary: dict[str, Any] = {}
    for policy in sorted({result["policy"] for result in results}):
        mine = {(result["arm"], result["seed"]): result for result in results if result["policy"] == policy}
        arms = [arm for arm in ARMS if any(name == arm for name, _ in mine)]
        summary[policy] = {arm: _arm(arm, mine) for arm in arms}
    return summary


def _arm(arm: str, results: dict[tuple[str, int], Result]) -> dict[str, Any]:
    mine = {seed: result for (name, seed), result in results.items() if name == arm}
    control = {seed: results["grpo", seed] for seed in mine if ("grpo", seed) in results}
    reached = [tokens_to(one["points"], one["points"][0]["sampled"] + TARGET_GAIN) for one in mine.values()]
    known = [tokens for tokens in reached if tokens is not None]
    found: dict[str, Any] = {
        "start": interval([one["points"][0]["sampled"] for one in mine.values()]),
        "sampled": interval([one["sampled"] for one in mine.values()]),
        "greedy": interval([one["greedy"] for one in mine.values()]),
        "tokens_to_target": {"median": statistics.median(known) if known else None, "reached": len(known)},
    }
    if arm != "grpo" and control:
        for figure in ("sampled", "greedy"):
            found[f"{figure}_minus_grpo"] = significant(
                [mine[seed][figure] - control[seed][figure] for seed in control]
            )
    for figure in ("erase_precision", "erase_recall", "zero_variance", "erased_share", "training_seconds", "peak_mib"):
        values = [one[figure] for one in mine.values() if one[figure] is not None]
        found[figure] = round(statistics.fmean(values), 4) if values else None
    return found


def draw(results: Sequence[Result], path: Path) -> None:
    """Sampled accuracy over tokens drawn: a line for each arm's mean, a band for its standard error."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    policies = sorted({result["policy"] for result in results})
    figure, axes = pyplot.subplots(
        1, len(policies), figsize=(7 * len(policies), 5), constrained_layout=True, squeeze=False
    )
    for axis, policy in zip(axes[0], policies, strict=True):
        for arm in ARMS:
            curves = [one["points"] for one in results if (one["arm"], one["policy"]) == (arm, policy)]
            if not curves:
                continue
            length = min(map(len, curves))
            tokens = [statistics.fmean(curve[i]["tokens"] for curve in curves) for i in range(length)]
            values = [[curve[i]["sampled"] for curve in curves] for i in range(length)]
            means = [statistics.fmean(each) for each in values]
            error = [statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0 for each in values]
            (line,) = axis.plot(tokens, means, label=f"{arm} ({len(curves)})")
            low, high = ([m + sign * e for m, e in zip(means, error, strict=True)] for sign in (-1, 1))
            axis.fill_between(tokens, low, high, color=line.get_color(), alpha=0.15)
        axis.set(title=policy, xlabel="tokens drawn, erased ones included", ylabel="accuracy, sampled at 1.0, plain")
        axis.legend(title="arm (seeds)")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    unknown = set(args.arms) - set(ARMS)
    if unknown:
        raise BenchmarkError(f"--arms: there is no {sorted(unknown)[0]}; there are {', '.join(ARMS)}")
    args.runs.mkdir(parents=True, exist_ok=True)
    if args.quick:
        args.seeds, args.tokens, args.policies = 1, args.tokens // 50, args.policies[:1]
        args.arms = ["grpo", "contrastive_half_plain"]
    wanted = list(product(range(args.seeds), args.policies, args.arms))
    files = [args.runs / f"{arm}-{policy}-{args.steps}-{args.tokens}-{seed}.json" for seed, policy, arm in wanted]
    missing = [(file, *one) for file, one in zip(files, wanted, strict=True) if not file.exists()]
    say(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them done before")
    with ThreadPoolExecutor(args.jobs) as pool:
        for number, line in enumerate(pool.map(lambda one: _run(one, args), missing), 1):
            say(f"{number} of {len(missing)}: {line}")
    results = [json.loads(file.read_text("utf-8")) for file in files]
    picture = args.json.with_suffix(".png")
    draw(results, picture)
    tokens = {"tokens": args.tokens, "steps": args.steps, "target_gain": TARGET_GAIN}
    return {**tokens, "picture": picture.name, "summary": summarise(results), "raw": results}


def _run(one: tuple[Path, int, str, str], args: argparse.Namespace) -> str:
    file, seed, policy, arm = one
    half = file.with_suffix(".tmp")
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    command = [sys.executable, "-m", "benchmarks.training.one_run", arm, policy]
    done = subprocess.run(
        [*command, str(seed), str(args.tokens), str(args.steps), str(half), str(file.with_suffix(""))],
        env={**os.environ, **_ENVIRONMENT, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchmarkError(f"{arm} from {policy}, seed {seed}: {last}")
    os.replace(half, file)
    result = json.loads(file.read_text("utf-8"))
    start = result["points"][0]["sampled"]
    return f"{arm} from {policy}, seed {seed}: {start:.3f} to {result['sampled']:.3f} in {result['seconds']:.0f} s"


def command_line(name: str, description: str, policies: Sequence[str], arms: Sequence[str]) -> argparse.ArgumentParser:
    """The flags of a comparison; seeds, tokens, steps and runs want defaults."""
    flags = parser(name, description)
    flags.add_argument("--seeds", type=int, metavar="N", help="Seeds 0 .. N-1.")
    flags.add_argument("--tokens", type=int, metavar="N", help="Tokens a run may draw.")
    flags.add_argument("--steps", type=int, metavar="N", help="Of a problem.")
    flags.add_argument("--arms", nargs="+", default=list(arms), metavar="ARM", help=f"Of {', '.join(ARMS)}.")
    flags.add_argument("--policies", nargs="+", default=policies, choices=policies, help="Starting policies.")
    flags.add_argument("--jobs", type=int, default=1, metavar="N", help="Runs at once; times are comparable with 1.")
    flags.add_argument("--runs", type=Path, metavar="DIR", help="Results and checkpoints by run.")
    return flags


def main() -> int:
    about = "E3RL against GRPO at equal generated tokens, on mod-10 chains."
    flags = command_line("training", about, POLICIES, list(MAIN))
    flags.set_defaults(seeds=3, tokens=500_000, steps=6, runs=Path("build/training-runs"))
    return run("training", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
