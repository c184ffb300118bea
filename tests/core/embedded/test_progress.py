"""The progress bar of the one-time conversion."""

from __future__ import annotations

import io

import pytest

from e3rl_core.embedded.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_redrawn() -> None:
    terminal = Terminal()
    with ProgressBar("Work", 2, terminal) as bar:
        bar.begin("one")
        bar.begin("two")
    assert "one" in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1


def test_progress_in_a_log_is_two_lines() -> None:
    def work(bar: ProgressBar) -> None:
        with bar:
            bar.begin("one")
            raise OSError("full")

    log = io.StringIO()
    with pytest.raises(OSError, match="full"):
        work(ProgressBar("Work", 2, log))
    assert [line.split("] ")[1].split()[0] for line in log.getvalue().splitlines()] == ["starting", "failed"]
