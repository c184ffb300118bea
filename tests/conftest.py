"""What all tests want of the process that runs them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A shell's background job ignores SIGINT, and so do the processes it starts: none of them could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Property tests measure nothing: on a busy machine no example is too slow.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def signals() -> Iterator[None]:
    """Gives SIGTERM back, which some commands take for themselves."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
