"""The op log of a response on disk, told as wire events: what `e3rl serve --healing-log-text` wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from e3rl_client.errors import E3RLError, LogError
from e3rl_client.events import WireEvent, parse_event

_PARTIAL = ".partial"


def events(path: str | os.PathLike[str]) -> Iterator[WireEvent]:
    """The events of a log, as far as it has been written. It does not tell what was drafted, nor channels.

    Raises:
        LogError: the file cannot be read, is no op log, was written without text, or a line of it is damaged.
    """
    lines = _lines(Path(path))
    with_text = any("text" in line or line.get("type") == "prompt" for _, line in lines)
    if not with_text and any("op" in line for _, line in lines):
        raise LogError(f"log {path}: has no text; `e3rl serve --healing-log DIR --healing-log-text` writes it")
    ends: dict[int, int] = {}
    numbered = 0
    for number, line in lines:
        try:
            for event in _told(line, ends):
                yield parse_event({**event, "v": 1, "seq": numbered})
                numbered += 1
        except (E3RLError, LookupError, TypeError, ValueError) as error:
            raise LogError(f"log {path}: line {number} is damaged ({error})") from None


def _told(line: dict[str, Any], ends: dict[int, int]) -> Iterator[dict[str, Any]]:
    """A line as events without their numbers. `ends`: by choice, how many characters are committed."""
    if line.get("type") == "summary":
        yield line
    if "op" not in line:
        return
    choice, text = line["choice"], line.get("text", "")
    start = ends.setdefault(choice, 0)
    place = {"segment": 0, "attempt": 0, **line, "choice": choice, "channel": "content", "start_char": start}
    match line["op"]:
        case "erased":
            if text:
                yield {**place, "type": "segment.delta"}
            yield {**place, "type": "segment.erased"}
        case "committed":
            ends[choice] += len(text)
            yield {**place, "type": "segment.committed", "text": text, "chars": len(text)}
        case "budget":
            yield {**place, "type": "budget.exhausted"}


def _lines(path: Path) -> Sequence[tuple[int, dict[str, Any]]]:
    """The log's lines behind its header, with their numbers; a line that is still being written is left out."""
    try:
        rows = path.read_text("utf-8").split("\n")  # not splitlines: text may hold other line separators
    except OSError as error:
        raise LogError(f"log {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise LogError(f"log {path}: is not text; name a file that `e3rl serve --healing-log DIR` wrote") from None
    if path.name.endswith(_PARTIAL) or not rows[-1]:
        rows.pop()
    lines = [(number, _parsed(path, number, row)) for number, row in enumerate(rows, 1)]
    if not lines or lines[0][1].get("type") != "header":
        raise LogError(
            f"log {path}: does not begin with a header; name a file that `e3rl serve --healing-log DIR` wrote"
        )
    return lines[1:]


def _parsed(path: Path, number: int, row: str) -> dict[str, Any]:
    try:
        found = json.loads(row)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LogError(f"log {path}: line {number} is damaged (is no JSON object)")
    return found
