"""`e3rl tune`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from e3rl_core.errors import EvaluationError
from e3rl_core.profile import PROFILE_NAME, Profile
from e3rl_training.evaluation import flags

_EXAMPLES = """\
examples:
  e3rl tune --model runs/modchain-cpu/final --data modchain --temperature 1 -o tune/modchain -- --dtype float32
  e3rl tune --url http://127.0.0.1:8000 --data my.jsonl --columns prompt=question --limit 200 -o tune/mine
  e3rl eval --url http://127.0.0.1:8000 --data my.jsonl --healing "$(cat tune/mine/healing.json)" -o eval/mine
The same command goes on from where it stopped. docs/calibration.md tells what is searched, and by what it is judged.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status."""
    return flags.run_command("tune", argv, _parser(), _run)


def _run(args: argparse.Namespace, server_flags: Sequence[str], command: str) -> int:
    from e3rl_training.evaluation.client import open_client
    from e3rl_training.tuning import run

    if not 0 < args.temperature <= 2:
        raise EvaluationError(f"--temperature: {args.temperature:g} is out of range; use one above 0, of at most 2")
    profile = _profile(args.model, server_flags)
    settings = run.Settings(
        temperature=args.temperature,
        candidates=args.tries,
        scoring=args.model is not None and profile is None,
        samples=args.samples,
        max_tokens=args.max_tokens,
        seed=args.seed,
        concurrency=args.concurrency,
    )
    problems = flags.problems_of(args)
    with flags.server_of(args, server_flags) as url:
        client = partial(open_client, url, args.concurrency)
        run.tune(problems, settings, client, args.output, command=command, profile=profile)
    sys.stdout.write(f"{args.output / run.READABLE}\n{args.output / run.FOUND}\n")
    return 0


def _profile(model: str | None, server_flags: Sequence[str]) -> Profile | None:
    """The profile that a server of our own will heal by."""
    if model is None:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", type=Path, default=Path(model) / PROFILE_NAME)
    path = parser.parse_known_args(server_flags)[0].profile
    return Profile.load(path) if path.is_file() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl tune",
        description="Search healing settings on half of the problems, and measure what was found on the other half.",
        usage="e3rl tune (--url URL | --model MODEL) --data TASK_OR_FILE -o DIR [options] [-- flags of e3rl serve]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_flags(parser)
    parser.add_argument(
        "--temperature", type=float, default=0.7, metavar="T", help="Of sampling: the one you serve at; default: 0.7."
    )
    parser.add_argument(
        "--tries", type=flags.count, default=24, metavar="N",
        help="Settings to try, the server's own among them; default: %(default)s.",
    )  # fmt: skip
    return parser
