"""`e3rl eval`."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from e3rl_core.errors import EvaluationError, PolicyError
from e3rl_core.policy import HealingPolicy
from e3rl_training.command import exit_status
from e3rl_training.evaluation.arms import DEFAULT, parse_arms
from e3rl_training.evaluation.problems import INSTRUCTION

_EXAMPLES = """\
examples:
  e3rl eval --model runs/modchain-cpu/final --data modchain -o eval/modchain -- --dtype float32
  e3rl eval --url http://127.0.0.1:8000 --data gsm8k --limit 100 --arms plain@0.7,healed@0.7,agree:5@0.7 -o eval/gsm8k
  e3rl eval --model PATH --data my.jsonl --columns prompt=question,answer=solution -o eval/mine
The same command goes on from where it stopped. docs/evaluation.md tells what each arm is and how tokens are counted.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    own, flags = _split(argv)
    args = _parser().parse_args(own)
    signal.signal(signal.SIGTERM, _stop)
    command = shlex.join(["e3rl", "eval", *map(_without_folder, argv)])
    return exit_status(
        "e3rl eval",
        lambda: _run(args, flags, command),
        extras="train",
        interrupted=f"the samples so far are in {args.output}, the same command goes on",
    )


def _run(args: argparse.Namespace, flags: Sequence[str], command: str) -> int:
    from e3rl_training.evaluation import run
    from e3rl_training.evaluation.client import open_client
    from e3rl_training.evaluation.problems import load_problems

    settings = run.Settings(
        arms=parse_arms(args.arms),
        samples=args.samples,
        max_tokens=args.max_tokens,
        seed=args.seed,
        healing=_healing(args.healing),
        concurrency=args.concurrency,
    )
    if flags and args.model is None:
        raise EvaluationError(f"{flags[0]}: flags behind -- are of the server that --model starts; leave them out")
    problems = load_problems(
        args.data,
        columns=_columns(args.columns),
        limit=args.limit,
        seed=args.seed,
        steps=args.steps,
        split=args.split,
        instruction=args.instruction,
        chat=not args.no_chat,
    )
    run.plan_of(problems, settings)  # a mistake costs a message here, and a server's start later
    with _server(args, flags) as url:
        run.evaluate(problems, settings, partial(open_client, url, args.concurrency), args.output, command)
    sys.stdout.write(f"{args.output / 'report.md'}\n")
    return 0


@contextmanager
def _server(args: argparse.Namespace, flags: Sequence[str]) -> Iterator[str]:
    if args.url is not None:
        yield args.url
        return
    from e3rl_training.evaluation.server import served

    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"-o {args.output}: cannot be made ({error.strerror}); name another folder") from None
    with served(args.model, flags, args.output / "server.log") as url:
        yield url


def _stop(*_: Any) -> NoReturn:
    """A SIGTERM unwinds as ^C does: a server of its own must not outlive the command."""
    raise KeyboardInterrupt


def _split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands in front of `--`, and behind it."""
    at = list(argv).index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def _columns(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, text.split(",")):
        ours, equals, theirs = pair.partition("=")
        if not equals or not theirs:
            raise EvaluationError(f"--columns {text}: write it as prompt=NAME,answer=NAME")
        found[ours] = theirs
    return found


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


def _without_folder(argument: str) -> str:
    """A report says nothing of whose machine it was."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:  # argparse calls the value by this name
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"has to be {least} or more")
        return int(text)

    return number


_count = _at_least(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl eval",
        description="Measure what healing buys per token, beside its rivals at the same price.",
        usage="e3rl eval (--url URL | --model MODEL) --data TASK_OR_FILE -o DIR [options] [-- flags of e3rl serve]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="A running server.")
    where.add_argument("--model", help="A folder or a name on the Hub, served for as long as it takes.")
    parser.add_argument(
        "--data", required=True, metavar="TASK_OR_FILE",
        help="gsm8k, math, math500, aime24, aime25, amc23, deepmath, modchain, wordproblems, or a file of problems.",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="Samples and report.")
    parser.add_argument("--arms", default=DEFAULT, help="What to compare, with commas between; default: %(default)s.")
    parser.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,..",
        help="What the file calls prompt and answer, where it calls them otherwise.",
    )  # fmt: skip
    parser.add_argument("--steps", type=_count, metavar="N", help="Of a generated problem; default: the task's own.")
    parser.add_argument("--split", help="Of a set from the Hub; default: the one that is not for training.")
    parser.add_argument(
        "--limit", type=_count, metavar="N", help="At most so many problems; default: all, generated 200."
    )
    parser.add_argument("--samples", type=_count, default=4, metavar="K", help="Draws per problem and source.")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="Of an answer; default: 1024, generated less.")
    parser.add_argument("--seed", type=_at_least(0), default=0, metavar="S", help="Of problems, draws and resamples.")
    parser.add_argument("--healing", metavar="JSON", help="Settings of healing, over the server's own.")
    parser.add_argument("--instruction", default=INSTRUCTION, help="Behind every problem; default: %(default)r.")
    parser.add_argument("--no-chat", action="store_true", help="Plain prompts, for a model without a chat template.")
    parser.add_argument("--concurrency", type=_count, default=32, metavar="N", help="Requests in flight at most.")
    return parser
