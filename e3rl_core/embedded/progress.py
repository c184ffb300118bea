"""A one-line progress bar for work in few steps."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

WIDTH = 24


class ProgressBar:
    """Redraws one line on a terminal; elsewhere (a log file) prints a line at the start and one at the end."""

    def __init__(self, title: str, steps: int, stream: TextIO) -> None:
        self._title = title
        self._steps = steps
        self._done = 0
        self._stream = stream
        self._redraws = stream.isatty()
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._draw("starting")
        return self

    def begin(self, step: str) -> None:
        """The step before is done; this one, named for the reader, begins."""
        if self._redraws:
            self._draw(step)
        self._done = min(self._done + 1, self._steps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._done = self._steps
        self._draw(f"{'done' if error is None else 'failed'} in {time.monotonic() - self._started:.0f} s")
        if self._redraws:
            self._stream.write("\n")

    def _draw(self, note: str) -> None:
        filled = WIDTH * self._done // self._steps
        line = f"{self._title} [{'#' * filled}{'.' * (WIDTH - filled)}] {note}"
        self._stream.write(f"\r\033[K{line}" if self._redraws else f"{line}\n")
        self._stream.flush()
