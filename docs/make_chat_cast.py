"""Film an answer of `e3rl chat`: ask a running server and write what the terminal shows, in real time, as an SVG.

    python docs/make_chat_cast.py --url http://127.0.0.1:8000 --out docs/chat.svg

The pictures are drawn by the chat's own `Page`, one per event, at most ten a second as on the terminal. The film is a
strip of pictures that moves by one picture at a time; who wants no motion sees the last one.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.console import Console, Group
from rich.segment import Segment
from rich.text import Text

from e3rl_client import E3RL, EventStream
from e3rl_client.chat.page import STATUS, Page, status

COLUMNS, ROWS = 84, 14
MARGIN, LINE, WIDTH = 24, 21, 760
HEIGHT = 2 * MARGIN + ROWS * LINE
SECONDS_BETWEEN, SECONDS_AT_THE_END = 0.1, 4.0
INK, DIM, ERASED = "#1f2328", "#8c959f", "#cf222e"

#: What the README asks.
ASKED: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}],
    "max_tokens": 140,
    "temperature": 1,
    "seed": 1,
}

Row = list[Segment]


@dataclass(frozen=True)
class Picture:
    """What the terminal shows from `second` on."""

    second: float
    rows: list[Row]


def film(stream: EventStream, prompt: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Picture]:
    """The pictures of one answer; seconds count from its first event."""
    console = Console(file=io.StringIO(), width=COLUMNS, height=ROWS, force_terminal=True, color_system="truecolor")
    choice, page, scrolled = stream.choice(0), Page(), [Text(f"> {prompt}", "bold")]
    began = last = clock()
    for _ in stream:
        if (lines := page.take_full_lines(choice, console)) is not None:
            scrolled.append(Text(lines))
        if clock() - last >= SECONDS_BETWEEN:
            last = clock()
            shown = Group(*scrolled, page.draw(choice, console), Text(status(choice), STATUS))
            yield Picture(last - began, console.render_lines(shown, pad=False)[-ROWS:])
    shown = Group(*scrolled, Text(page.take_rest(choice)), Text(status(choice), STATUS))
    yield Picture(clock() - began, console.render_lines(shown, pad=False)[-ROWS:])


def svg(pictures: list[Picture], title: str) -> str:
    """The film."""
    whole = pictures[-1].second + SECONDS_AT_THE_END
    steps = "".join(
        f"{100 * picture.second / whole:.2f}%{{transform:translateX({-WIDTH * i}px)}}"
        for i, picture in enumerate(pictures)
    )
    still = f"transform:translateX({-WIDTH * (len(pictures) - 1)}px)"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
        f"<title>{escape(title)}</title>",
        f"<style>@keyframes film{{0%{{transform:none}}{steps}100%{{{still}}}}}"
        f"#film{{animation:film {whole:.2f}s steps(1,end) infinite}}"
        f"@media (prefers-reduced-motion:reduce){{#film{{animation:none;{still}}}}}"
        f"text{{white-space:pre;fill:{INK}}}.d{{fill:{DIM}}}.e{{fill:{ERASED};text-decoration:line-through}}"
        ".b{font-weight:bold}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
        '<g id="film">',
        *(_picture(WIDTH * i, picture) for i, picture in enumerate(pictures)),
        "</g></svg>",
    ]
    return "\n".join(lines) + "\n"


def _picture(x: int, picture: Picture) -> str:
    rows = (_row(x + MARGIN, MARGIN + LINE * (i + 1), row) for i, row in enumerate(picture.rows))
    return "".join(row for row in rows if row)


def _row(x: int, y: int, row: Row) -> str:
    parts = "".join(_part(segment) for segment in Segment.simplify(row) if segment.text)
    return f'<text x="{x}" y="{y}">{parts}</text>' if parts else ""


def _part(segment: Segment) -> str:
    style, text = segment.style, escape(segment.text)
    if style is None:
        return text
    kind = "e" if style.strike else "d" if style.dim else "b" if style.bold else ""
    return f'<tspan class="{kind}">{text}</tspan>' if kind else text


def main() -> int:
    flags = argparse.ArgumentParser(description="Film an answer of `e3rl chat` as an SVG.")
    flags.add_argument("--url", default="http://127.0.0.1:8000")
    flags.add_argument("--out", type=Path, default=Path("docs/chat.svg"))
    args = flags.parse_args()
    client = E3RL(base_url=f"{args.url}/v1", api_key="none")
    stream = client.chat.completions.stream_events(**ASKED)
    prompt = ASKED["messages"][0]["content"]
    pictures = list(film(stream, prompt))
    args.out.write_text(svg(pictures, f"e3rl chat: {prompt}"), "utf-8")
    assert stream.summary is not None
    sys.stderr.write(f"{args.out}: {len(pictures)} pictures, {stream.summary.erasures} erasures\n")
    return 0 if stream.summary.erasures else 1


if __name__ == "__main__":
    sys.exit(main())
