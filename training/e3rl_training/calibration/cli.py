"""`e3rl calibrate`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from e3rl_core.errors import CalibrationError
from e3rl_core.policy import PRESETS
from e3rl_training.command import exit_status
from e3rl_training.data import parse_columns

_EXAMPLES = """\
examples:
  e3rl calibrate --data my.jsonl --columns prompt=question,answer=solution       the embedded model
  e3rl calibrate PATH --data prompts.jsonl --columns prompt=text,answer=         prompts without answers
  e3rl calibrate runs/modchain-cpu/final --data modchain --temperature 1 --erase-rate 0.1
U depends strongly on the temperature: calibrate at the one that you serve at. docs/calibration.md tells more.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    args = _parser().parse_args(argv)
    return exit_status("e3rl calibrate", lambda: _run(args), extras="cpu,train", interrupted="nothing was written")


def _run(args: argparse.Namespace) -> int:
    columns = parse_columns(args.columns)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # read when vLLM is imported
    from e3rl_training.calibration import report, run

    settings = run.Settings(
        data=args.data,
        columns=columns,
        limit=args.limit,
        instruction=args.instruction,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        erase_rate=args.erase_rate,
        preset=args.healing_preset,
        seed=args.seed,
    )
    found = run.calibrate(args.model, settings, args.output)
    sys.stdout.write(report.text(found.report))
    if args.report is not None:
        try:
            args.report.write_text(json.dumps(found.report, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise CalibrationError(f"--report {args.report}: cannot be written ({error.strerror})") from None
    sys.stdout.write(f"\n{found.path}\n")
    return 0


def _number(low: float, high: float, kind: type[float] = float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"has to be from {low:g} to {high:g}")
        return value

    parse.__name__ = kind.__name__  # argparse names it where the text is no number
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl calibrate",
        description="Measure what is normal for a model on your prompts, and write the profile that healing goes by.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="A folder or a name on the Hub; default: the embedded one."
    )
    parser.add_argument("--data", required=True, metavar="TASK_OR_FILE", help="As of `e3rl eval`.")
    parser.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,..",
        help="What the file calls prompt and answer; `answer=` where it has none.",
    )  # fmt: skip
    parser.add_argument("--limit", type=_number(1, 1e9, int), default=200, metavar="N", help="Prompts; default: 200.")
    parser.add_argument("--instruction", default="", help="Behind every prompt, after a blank line; default: none.")
    parser.add_argument(
        "--temperature", type=_number(0, 2), default=0.7, metavar="T", help="Of sampling; default: 0.7."
    )
    parser.add_argument("--max-tokens", type=_number(1, 1e9, int), default=256, metavar="N", help="Default: 256.")
    parser.add_argument(
        "--erase-rate", type=_number(0, 1), metavar="R",
        help="Share of first draws to erase; default: leave k as it is, and tell what it erases.",
    )  # fmt: skip
    parser.add_argument(
        "--healing-preset", choices=sorted(PRESETS),
        help="Segment lengths; default: those of the profile beside the model, else responsive.",
    )  # fmt: skip
    parser.add_argument("--seed", type=_number(0, 2**31, int), default=0, metavar="S", help="Of prompts and draws.")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="Default: in the model's folder.")
    parser.add_argument("--report", type=Path, metavar="FILE", help="The figures, as JSON.")
    return parser
