"""`python -m e3rl_server` is the `e3rl` command."""

import sys

from e3rl_server.cli import main

if __name__ == "__main__":  # vLLM's worker processes import the main module again
    sys.exit(main())
