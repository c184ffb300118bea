"""Showing an answer while it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from e3rl_client.chat.page import STATUS, Page, harmless, status
from e3rl_client.events import TextDelta
from e3rl_client.streams import EventStream

#: What an `EventStream` is given to.
Show = Callable[[EventStream], None]

#: Often enough for eyes, seldom enough for a slow line.
_REDRAWS_PER_SECOND = 10


def on_terminal(console: Console) -> Show:
    """Shows drafts and erasures as they come; what stays on the terminal is final text and the status line."""

    def show(stream: EventStream) -> None:
        choice, page = stream.choice(0), Page()
        try:
            with Live(console=console, refresh_per_second=_REDRAWS_PER_SECOND, transient=True) as live:
                for _ in stream:
                    if (lines := page.take_full_lines(choice, console)) is not None:
                        console.print(Text(lines))
                    live.update(Group(page.draw(choice, console), Text(status(choice), STATUS)))
        finally:
            for text, style in ((page.take_rest(choice), ""), (status(choice), STATUS)):
                if text:
                    console.print(Text(text, style))

    return show


def into_pipe(out: TextIO) -> Show:
    """Writes final text alone, when it is final; also to a terminal that can do no more."""

    def show(stream: EventStream) -> None:
        for event in stream:
            if isinstance(event, TextDelta) and event.channel == "content":
                out.write(harmless(event.text) if out.isatty() else event.text)
                out.flush()
        out.write("\n")

    return show
