"""E3RL against GRPO on a real language model: SmolLM2-135M-Instruct and word problems, at equal generated tokens.

The comparison is that of `python -m benchmarks.training`; rollouts are vLLM's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.report import run
from benchmarks.training.__main__ import command_line, measure

#: Plain GRPO, and what did best against it on mod-chains.
ARMS = ("grpo", "contrastive_half_plain")


def main() -> int:
    about = "E3RL against GRPO at equal generated tokens, on word problems."
    flags = command_line("training.words", about, ["smollm2-words"], ARMS)
    flags.set_defaults(seeds=2, tokens=120_000, steps=4, runs=Path("build/words-runs"))
    return run("training.words", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
