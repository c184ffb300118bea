"""`e3rl eval`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from e3rl_core.errors import EvaluationError, PolicyError
from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation import flags
from e3rl_training.evaluation.arms import DEFAULT, parse_arms

_EXAMPLES = """\
examples:
  e3rl eval --model runs/modchain-cpu/final --data modchain -o eval/modchain -- --dtype float32
  e3rl eval --url http://127.0.0.1:8000 --data gsm8k --limit 100 --arms plain@0.7,healed@0.7,agree:5@0.7 -o eval/gsm8k
  e3rl eval --model PATH --data my.jsonl --columns prompt=question,answer=solution -o eval/mine
The same command goes on from where it stopped. docs/evaluation.md tells what each arm is and how tokens are counted.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status."""
    return flags.run_command("eval", argv, _parser(), _run)


def _run(args: argparse.Namespace, server_flags: Sequence[str], command: str) -> int:
    from e3rl_training.evaluation import run
    from e3rl_training.evaluation.client import open_client

    settings = run.Settings(
        arms=parse_arms(args.arms),
        samples=args.samples,
        max_tokens=args.max_tokens,
        seed=args.seed,
        healing=_healing(args.healing),
        concurrency=args.concurrency,
    )
    problems = flags.problems_of(args)
    with flags.server_of(args, server_flags) as url:
        run.evaluate(problems, settings, partial(open_client, url, args.concurrency), args.output, command)
    sys.stdout.write(f"{args.output / 'report.md'}\n")
    return 0


def _healing(text: str | None) -> dict[str, Any]:
    """The settings, checked: a mistake costs a message here, and an evaluation later."""
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EvaluationError(f'--healing: {text[:40]!r} is no JSON object of settings, such as {{"max_erasures": 2}}')
    for key in ("mode", "schedule"):
        if key in found:
            raise EvaluationError(f"--healing: {key} is the arms' to say; leave it out")
    try:
        HealingPolicy().updated(found, where="--healing")
    except PolicyError as error:
        raise EvaluationError(str(error)) from None
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl eval",
        description="Measure what healing buys per token, beside its rivals at the same price.",
        usage="e3rl eval (--url URL | --model MODEL) --data TASK_OR_FILE -o DIR [options] [-- flags of e3rl serve]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_flags(parser)
    parser.add_argument("--arms", default=DEFAULT, help="What to compare, with commas between; default: %(default)s.")
    parser.add_argument("--healing", metavar="JSON", help="Settings of healing, over the server's own.")
    return parser
