"""`e3rl chat` as a user runs it: on a pseudo-terminal, or between pipes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

_COMMAND = [sys.executable, "-m", "e3rl_server", "chat"]


def piped(*flags: str, prompt: str = "Say hello.", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run it with `prompt` on its standard input and pipes for its output."""
    return subprocess.run([*_COMMAND, *flags], input=prompt, capture_output=True, text=True, timeout=timeout)


class Terminal:
    """It runs on a terminal of 24 lines of 80 characters for the length of a `with` block."""

    def __init__(self, *flags: str, env: Mapping[str, str] | None = None) -> None:
        plain = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        settings = {**plain, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **(env or {})}
        self._pid, self._end = pty.fork()
        if self._pid == 0:
            os.execve(sys.executable, [*_COMMAND, *flags], settings)
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def interrupt_until(self, pattern: str, timeout: float = 60) -> None:
        """Press Ctrl-C until it is heard: between showing a prompt and listening, Python's line editor loses one."""
        deadline = time.monotonic() + timeout
        while True:
            self.type("\x03")
            try:
                self.wait_for(pattern, timeout=2)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def wait_for(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Read until `pattern` has been shown, and take everything up to its end off `shown`."""
        deadline = time.monotonic() + timeout
        while (found := re.search(pattern, self.shown, re.DOTALL)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown!r}"
            assert self._read(), f"it ended without {pattern!r}: {self.shown!r}"
        self.shown = self.shown[found.end() :]
        return found

    def exit_status(self, timeout: float = 30) -> int:
        """Wait for its end."""
        deadline = time.monotonic() + timeout
        while self._read():
            assert time.monotonic() < deadline, f"still running: {self.shown!r}"
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _read(self) -> bool:
        if select.select([self._end], [], [], 0.2)[0]:
            try:
                self.shown += os.read(self._end, 1 << 16).decode(errors="replace")
            except OSError:  # the other end is closed
                return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._end)
