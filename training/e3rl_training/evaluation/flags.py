"""What `e3rl eval` and `e3rl tune` have in common on the command line: what is asked, and who answers."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from e3rl_core.errors import DataError, EvaluationError
from e3rl_training.command import exit_status
from e3rl_training.data import parse_columns
from e3rl_training.evaluation.problems import INSTRUCTION, Problems, load_problems


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the common flags to a parser."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="A running server.")
    where.add_argument("--model", help="A folder or a name on the Hub, served for as long as it takes.")
    parser.add_argument(
        "--data", required=True, metavar="TASK_OR_FILE",
        help="gsm8k, math, math500, aime24, aime25, amc23, deepmath, modchain, wordproblems, or a file of problems.",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="Samples and report.")
    parser.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,..",
        help="What the file calls prompt and answer, where it calls them otherwise.",
    )  # fmt: skip
    parser.add_argument("--steps", type=count, metavar="N", help="Of a generated problem; default: the task's own.")
    parser.add_argument("--split", help="Of a set from the Hub; default: the one that is not for training.")
    parser.add_argument(
        "--limit", type=count, metavar="N", help="At most so many problems; default: all, generated 200."
    )
    parser.add_argument("--samples", type=count, default=4, metavar="K", help="Draws per problem and source.")
    parser.add_argument("--max-tokens", type=count, metavar="N", help="Of an answer; default: 1024, generated less.")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="Of problems, draws and resamples.")
    parser.add_argument("--instruction", default=INSTRUCTION, help="Behind every problem; default: %(default)r.")
    parser.add_argument("--no-chat", action="store_true", help="Plain prompts, for a model without a chat template.")
    parser.add_argument("--concurrency", type=count, default=32, metavar="N", help="Requests in flight at most.")


def at_least(least: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from `least` on."""

    def number(text: str) -> int:  # argparse calls the value by this name
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"has to be {least} or more")
        return int(text)

    return number


count = at_least(1)


def problems_of(args: argparse.Namespace) -> Problems:
    """The problems that the flags name.

    Raises:
        DataError: there are none, or they have no answers.
    """
    columns = parse_columns(args.columns)
    if columns.get("answer") == "":
        raise DataError("--columns answer=: answers are what is graded by; name the column that has them")
    return load_problems(
        args.data,
        columns=columns,
        limit=args.limit,
        seed=args.seed,
        steps=args.steps,
        split=args.split,
        instruction=args.instruction,
        chat=not args.no_chat,
    )


@contextmanager
def server_of(args: argparse.Namespace, flags: Sequence[str]) -> Iterator[str]:
    """The address of the server that the flags name, started where it has to be.

    Args:
        args: with the flags of `add_flags`.
        flags: of a server that is started.

    Raises:
        EvaluationError: it does not start, or there is none to start.
    """
    if args.url is not None:
        if flags:
            raise EvaluationError(f"{flags[0]}: flags behind -- are of the server that --model starts; leave them out")
        yield args.url
        return
    from e3rl_training.evaluation.server import served

    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"-o {args.output}: cannot be made ({error.strerror}); name another folder") from None
    with served(args.model, flags, args.output / "server.log") as url:
        yield url


Body = Callable[[argparse.Namespace, Sequence[str], str], int]
"""Of a command: its flags, those of the server, and how its report spells it; the exit status."""


def run_command(name: str, argv: Sequence[str], parser: argparse.ArgumentParser, body: Body) -> int:
    """Run a command that asks a server; the exit status: 0 done, 1 an error, 2 wrong usage, 130 interrupted.

    Args:
        name: what follows `e3rl`.
        argv: its arguments; those behind `--` are flags of the server that `--model` starts.
        parser: of those in front, with the flags of `add_flags`.
        body: what it does.
    """
    at = list(argv).index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:at])
    signal.signal(signal.SIGTERM, _stop)
    spelled = shlex.join(["e3rl", name, *map(_without_folder, argv)])
    return exit_status(
        f"e3rl {name}",
        lambda: body(args, argv[at + 1 :], spelled),
        extras="train",
        interrupted=f"the samples so far are in {args.output}, the same command goes on",
    )


def _stop(*_: Any) -> NoReturn:
    """A SIGTERM unwinds as ^C does: a server of its own must not outlive the command."""
    raise KeyboardInterrupt


def _without_folder(argument: str) -> str:
    """A report says nothing of whose machine it was."""
    return Path(argument).name if Path(argument).is_absolute() else argument
