"""`e3rl train`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from e3rl_training.command import exit_status

_EXAMPLES = """\
examples:
  e3rl train modchain-cpu.yaml                              minutes on two cores, no download
  e3rl train words-smollm2.yaml                             a real language model, on two cores, no download
  e3rl train modchain-cpu.yaml --set training.max_steps=50  any key of the recipe
  e3rl train my-recipe.yaml --dry-run                       resolve and check it, run one small step
  e3rl serve runs/modchain-cpu/final                        serve what it leaves
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status: 0 done, 1 an error, 2 wrong usage, 130 interrupted with a checkpoint."""
    args = _parser().parse_args(argv)
    return exit_status(
        "e3rl train",
        lambda: _run(args, shlex.join(["e3rl", "train", *argv])),
        extras="train",
        interrupted="what was not in a checkpoint is lost",
    )


def _run(args: argparse.Namespace, command: str) -> int:
    from accelerate import PartialState

    from e3rl_training import run  # imports torch and TRL: seconds
    from e3rl_training.recipe import Recipe

    recipe = Recipe.load(args.recipe, args.set)
    if args.dry_run:
        sys.stdout.write(json.dumps(run.dry_run(recipe), indent=2) + "\n")
        return 0
    outcome = run.train(recipe, resume=args.resume, command=command)
    PartialState().destroy_process_group()  # threads of its that outlive the interpreter would abort the process
    if not outcome.finished:
        sys.stderr.write(f"e3rl train: stopped at step {outcome.steps}; go on with --resume\n")
        return 130
    sys.stdout.write(f"{outcome.folder / run.FINAL}: serve it with `e3rl serve {outcome.folder / run.FINAL}`\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl train",
        description="Train a model with rollouts that erase and redraw their own uncertain segments.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="A YAML file, or the name of one that comes with e3rl.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="Override a key of the recipe; repeatable."
    )
    parser.add_argument("--resume", action="store_true", help="Go on from the last checkpoint in the output folder.")
    parser.add_argument("--dry-run", action="store_true", help="Check the recipe and run one small step; no download.")
    return parser
