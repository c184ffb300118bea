"""Where this project keeps what it prepares once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where prepared models live: ``$E3RL_CACHE``, else ``e3rl`` in the user's cache folder."""
    if own := os.environ.get("E3RL_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "e3rl"
