"""How the commands of this package end: an exit status, and one sentence for what a user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable

from e3rl_core.errors import E3RLError


def exit_status(command: str, run: Callable[[], int], *, extras: str, interrupted: str) -> int:
    """Run a command's body: its own status, 1 for an error, 130 for an interruption.

    Args:
        command: its name, for the messages.
        run: the body; it may import what only some installations have.
        extras: what installs that.
        interrupted: what to know after ^C.
    """
    try:
        return run()
    except E3RLError as error:
        sys.stderr.write(f"{command}: error: {error}\n")
        return 1
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{command}: error: {error.name} is not installed: pip install 'e3rl[{extras}]'\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{command}: interrupted; {interrupted}\n")
        return 130
