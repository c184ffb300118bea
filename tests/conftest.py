"""What all tests want of the process that runs them."""

from __future__ import annotations

import signal

# A shell's background job ignores SIGINT, and so do the processes it starts: none of them could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
