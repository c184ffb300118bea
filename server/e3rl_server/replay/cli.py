"""`e3rl replay`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from e3rl_core.errors import E3RLError, EventError
from e3rl_server.replay import page, terminal
from e3rl_server.replay.log import Response, logs_in, read


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status: 0 done, 1 an error, 2 wrong usage."""
    args = _parser().parse_args(argv)
    try:
        response = _chosen(args.log, args.response)
        if response is None:
            sys.stdout.write(_listing(args.log))
        elif args.html is not None:
            _write(args.html, page.render(response))
            sys.stdout.write(f"{args.html}\n")
        else:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            width = shutil.get_terminal_size((100, 24)).columns
            sys.stdout.write(terminal.render(response, colour=colour, width=width))
    except E3RLError as error:
        sys.stderr.write(f"e3rl replay: error: {error}\n")
        return 1
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _chosen(log: Path, number: int | None) -> Response | None:
    """The response to show; None: the folder has several, and none was chosen."""
    if not log.is_dir():
        if number not in (None, 1):
            raise EventError(f"--response {number}: {log} is the log of one response; name its folder to choose")
        return read(log)
    logs = logs_in(log)
    if not logs:
        raise EventError(f"log {log}: the folder holds no log; name one that `e3rl serve --healing-log DIR` wrote to")
    if number is None:
        return read(logs[0]) if len(logs) == 1 else None
    if number > len(logs):
        raise EventError(f"--response {number}: {log} holds {len(logs)} responses")
    return read(logs[number - 1])


def _listing(folder: Path) -> str:
    responses = [read(path) for path in logs_in(folder)]
    lines = [f"{number:4}  {terminal.title(one)}\n      {one.sums}" for number, one in enumerate(responses, 1)]
    return "\n".join([*lines, "Show one with --response N."]) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise EventError(f"--html {path}: cannot be written ({error.strerror})") from None


def _ordinal(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl replay", description="Show a response's segments, draws and decisions from its op log."
    )
    parser.add_argument(
        "log", type=Path, metavar="LOG", help="A file that `e3rl serve --healing-log DIR` wrote, or that folder."
    )
    parser.add_argument("--response", type=_ordinal, metavar="N", help="Which one of a folder, from the oldest, 1.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="Write a page that needs nothing else instead.")
    return parser
