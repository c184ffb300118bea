"""The `e3rl` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from e3rl_core import __version__

USAGE = """\
usage: e3rl serve [MODEL] [--healing off|shadow|on] [--healing-preset paper|responsive] [--profile FILE]
                  [--healing-log DIR] [--healing-log-text] [--no-playground] [any `vllm serve` flag]
       e3rl train RECIPE [--set KEY=VALUE] [--resume] [--dry-run]
       e3rl eval (--url URL | --model MODEL) --data TASK_OR_FILE [--arms ..] -o DIR
       e3rl tune (--url URL | --model MODEL) --data TASK_OR_FILE [--temperature T] -o DIR
       e3rl calibrate [MODEL] --data TASK_OR_FILE [--temperature T] [--erase-rate R] [-o FILE]
       e3rl replay LOG [--html FILE] [--response N]
       e3rl chat [--url URL] [--model NAME] [--healing off|shadow|on|JSON] [--temperature T] ..
       e3rl --version

serve   serves MODEL (a folder, or a name on the Hugging Face hub; an embedded small one by default) over the OpenAI
        API, with a model that erases and redraws its own uncertain segments. `e3rl serve --help` tells more.
train   trains a model with such rollouts and leaves a checkpoint to serve. `e3rl train --help` tells more.
eval    measures what healing buys per token on a task, beside its rivals. `e3rl eval --help` tells more.
tune    searches healing settings that pay, and measures them on problems it has not searched on.
calibrate  measures what is normal for MODEL on your prompts, and writes the profile that healing goes by.
replay  shows what healing did to a response, from the log that `e3rl serve --healing-log` writes.
chat    talks to a served model on the terminal, and shows what is erased. `e3rl chat --help` tells more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    match arguments:
        case ["serve", *rest]:
            from e3rl_server.serve import serve

            return serve(rest)
        case ["train", *rest]:
            from e3rl_training.cli import main as train

            return train(rest)
        case ["eval", *rest]:
            from e3rl_training.evaluation.cli import main as evaluate

            return evaluate(rest)
        case ["tune", *rest]:
            from e3rl_training.tuning.cli import main as tune

            return tune(rest)
        case ["calibrate", *rest]:
            from e3rl_training.calibration.cli import main as calibrate

            return calibrate(rest)
        case ["replay", *rest]:
            from e3rl_server.replay.cli import main as replay

            return replay(rest)
        case ["chat", *rest]:
            return _chat(rest)
        case ["--version" | "-V"]:
            sys.stdout.write(f"e3rl {__version__}\n")
            return 0
        case ["--help" | "-h"]:
            sys.stdout.write(USAGE)
            return 0
        case []:
            sys.stderr.write(USAGE)
            return 2
        case _:
            sys.stderr.write(
                f"e3rl: error: unknown command {arguments[0]!r}: "
                "use `e3rl serve`, `e3rl train`, `e3rl eval`, `e3rl tune`, `e3rl calibrate`, `e3rl replay`, `e3rl chat` "
                "or `e3rl --help`
"
            )
            return 2


def _chat(argv: Sequence[str]) -> int:
    try:
        from e3rl_client.chat.cli import main as chat
    except ModuleNotFoundError as error:
        sys.stderr.write(f"e3rl chat: error: {error.name} is not installed: pip install 'e3rl[client]'\n")
        return 1
    return chat(argv)
