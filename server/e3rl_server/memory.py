"""How much memory this process may still take: the machine's, or its container's if that is less."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")

#: Limit and usage files of control groups, version 2 and 1.
_CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can be allocated without swapping."""
    import psutil

    machine: int = psutil.virtual_memory().available
    for limit, usage in _CGROUP_FILES:
        with suppress(OSError, ValueError):  # no such control group, or "max": no limit
            machine = min(machine, int((cgroup / limit).read_text()) - int((cgroup / usage).read_text()))
    return max(machine, 0)
