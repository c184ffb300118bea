"""What all tests want of the process that runs them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

# A shell's background job ignores SIGINT, and so do the processes it starts: none of them could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def signals() -> Iterator[None]:
    """Gives SIGTERM back, which some commands take for themselves."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
