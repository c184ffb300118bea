"""Draw a stream that heals: ask a running server for live events and write what came as an SVG.

    python docs/make_heal_picture.py --url http://127.0.0.1:8000 --out docs/healing.svg

Kept text is black; an erased draw is red and struck through, with its uncertainty U and the threshold it exceeded; what
was drawn in its place is green.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import httpx

WIDTH, MARGIN, LINE, COLUMNS = 860, 28, 22, 92
COLOURS = {"kept": "#1f2328", "erased": "#cf222e", "replacement": "#1a7f37", "note": "#57606a"}

#: What the README asks.
ASKED: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}],
    "max_tokens": 140,
    "temperature": 1,
    "seed": 1,
}


@dataclass(frozen=True)
class Piece:
    """One draw of a segment: its text, what became of it, and what is said of it."""

    kind: str
    text: str
    note: str = ""


def events(url: str) -> Iterator[dict[str, Any]]:
    """The healing events of one streamed chat completion."""
    body = {**ASKED, "stream": True, "healing": {"stream": "live"}}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as response:
        if response.status_code != 200:
            raise SystemExit(f"the server answered {response.status_code}: {response.read().decode()}")
        for line in response.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: ")).get("healing")
                if event:
                    yield event


def pieces(stream: Iterable[dict[str, Any]]) -> Iterator[Piece]:
    """What was drawn, in the order it was drawn."""
    drawn = ""
    for event in stream:
        if event["type"] == "segment.delta":
            drawn += event["text"]
        elif event["type"] == "segment.erased":
            score = f"U {event['uncertainty']['u']:.2f} > threshold {event['threshold']:.2f}"
            yield Piece("erased", drawn, f"{score}: erased, {event['tokens']} tokens")
            drawn = ""
        elif event["type"] == "segment.committed":
            text, redrawn = event.get("text", drawn)[: event["chars"]], event["attempts"] > 1
            note = f"U {event['uncertainty']['u']:.2f}: kept, draw {event['attempts']}" if redrawn else ""
            yield Piece("replacement" if redrawn else "kept", text, note)
            drawn = drawn[event["chars"] :] if "text" not in event else ""


def svg(drawn: Iterable[Piece], title: str) -> str:
    """The picture."""
    rows = [row for piece in drawn for row in _rows(piece)]
    height = 2 * MARGIN + LINE * (len(rows) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
        _text(MARGIN, f"> {title}", "note", ' font-weight="bold"'),
    ]
    lines += [_text(MARGIN + LINE * (i + 2), text, kind, style) for i, (text, kind, style) in enumerate(rows)]
    return "\n".join([*lines, "</svg>", ""])


def _rows(piece: Piece) -> Iterator[tuple[str, str, str]]:
    style = ' text-decoration="line-through"' if piece.kind == "erased" else ""
    for paragraph in piece.text.strip().splitlines():
        for line in textwrap.wrap(paragraph, COLUMNS):
            yield line, piece.kind, style
    if piece.note:
        yield f"    {piece.note}", "note", ' font-size="12"'


def _text(y: int, text: str, kind: str, style: str) -> str:
    return f'<text x="{MARGIN}" y="{y}" fill="{COLOURS[kind]}"{style} xml:space="preserve">{escape(text)}</text>'


def main() -> int:
    flags = argparse.ArgumentParser(description="Draw a stream that heals as an SVG.")
    flags.add_argument("--url", default="http://127.0.0.1:8000")
    flags.add_argument("--out", type=Path, default=Path("docs/healing.svg"))
    args = flags.parse_args()
    drawn = list(pieces(events(args.url)))
    args.out.write_text(svg(drawn, ASKED["messages"][0]["content"]), "utf-8")
    erased = sum(piece.kind == "erased" for piece in drawn)
    sys.stderr.write(f"{args.out}: {len(drawn)} draws, {erased} erased\n")
    return 0 if erased else 1


if __name__ == "__main__":
    sys.exit(main())
