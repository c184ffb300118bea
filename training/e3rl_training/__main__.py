"""`python -m e3rl_training RECIPE`: what `accelerate launch -m` starts on every rank."""

import sys

from e3rl_training.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
