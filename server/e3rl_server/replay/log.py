"""A response's op log read back: its choices, and at each checkpoint the draws that were made there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e3rl_core.errors import EventError
from e3rl_core.events import BudgetOp, CommittedOp, ErasedOp, load_ops

_PARTIAL = ".partial"


@dataclass(frozen=True)
class Draw:
    """One draw, with its text where the log has it."""

    op: ErasedOp | CommittedOp
    text: str | None

    @property
    def kept(self) -> bool:
        return isinstance(self.op, CommittedOp)

    @property
    def note(self) -> str:
        """Why it was erased, or kept in spite of a reason to erase it; empty for a draw that passed."""
        op = self.op
        if op.reason is None:
            return ""
        if isinstance(op, ErasedOp):
            return f"{op.reason}"
        return f"would be erased: {op.reason}" if op.limit is None else f"{op.reason}, but {op.limit} is reached"


@dataclass
class Response:
    """One response, as its log has it."""

    id: str
    model: str
    mode: str
    time: float
    """Seconds since the epoch."""
    prompt_tokens: int | None = None
    """None: the log has no text, nor the prompt."""
    choices: dict[int, list[Draw]] = field(default_factory=dict)
    exhausted: dict[int, list[str]] = field(default_factory=dict)
    """By choice, the budgets that ran out."""
    finished: bool = False

    @property
    def with_text(self) -> bool:
        return self.prompt_tokens is not None or any(draw.text is not None for draw in self.draws)

    @property
    def lacks_erased_text(self) -> bool:
        return self.with_text and any(not draw.kept and draw.text is None for draw in self.draws)

    @property
    def draws(self) -> Iterator[Draw]:
        return (draw for draws in self.choices.values() for draw in draws)

    @property
    def sums(self) -> str:
        """Of all choices, in one line."""
        kept = [draw.op for draw in self.draws if isinstance(draw.op, CommittedOp)]
        erased = [draw.op for draw in self.draws if isinstance(draw.op, ErasedOp)]
        parts = [f"kept {len(kept)} segments ({sum(op.tokens for op in kept)} tokens)"]
        if self.mode == "shadow":
            parts.append(f"would erase {sum(op.reason is not None for op in kept)}")
        else:
            parts.append(f"erased {len(erased)} draws ({sum(op.tokens for op in erased)} tokens)")
        if kept:
            parts.append(f"mean U {sum(op.uncertainty.u for op in kept) / len(kept):.2f} nats")
        return ", ".join(parts)

    @property
    def advice(self) -> str:
        """What to do to see more; empty where nothing is missing."""
        if not self.with_text:
            return "This log has no text. `e3rl serve --healing-log DIR --healing-log-text` writes it, prompts too."
        if self.lacks_erased_text:
            return "Erased text is logged for requests with `return_erased: true` only."
        return "" if self.finished else "The response is not over, or its server ended before it was."


def logs_in(folder: Path) -> list[Path]:
    """The logs of a folder, oldest first."""
    found = [path for path in folder.iterdir() if path.name.endswith((".jsonl", f".jsonl{_PARTIAL}"))]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def read(path: Path) -> Response:
    """Read one response's log; of an unfinished one the line that is being written is left out.

    Raises:
        EventError: the file cannot be read, is no op log, or a line of it is damaged; names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:  # text may hold every other kind of line end
            lines = file.readlines()
    except OSError as error:
        raise EventError(f"log {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise EventError(f"log {path}: is not text; name a file that `e3rl serve --healing-log DIR` wrote") from None
    if path.name.endswith(_PARTIAL) and lines and not lines[-1].endswith("\n"):
        lines.pop()
    response = _header(path, lines)
    for number, line in enumerate(lines[1:], 2):
        try:
            _take(response, _parsed(line))
        except (EventError, KeyError, TypeError, ValueError) as error:
            why = f"lacks {error}" if isinstance(error, KeyError) else str(error).removeprefix("op log: ")
            raise EventError(f"log {path}: line {number} is damaged ({why})") from None
    return response


def _header(path: Path, lines: Sequence[str]) -> Response:
    try:
        header = _parsed(lines[0])
        if header["type"] != "header":
            raise ValueError
        return Response(str(header["id"]), str(header["model"]), str(header["mode"]), float(header["time"]))
    except (IndexError, KeyError, TypeError, ValueError):
        raise EventError(
            f"log {path}: does not begin with a header; name a file that `e3rl serve --healing-log DIR` wrote"
        ) from None


def _parsed(line: str) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError("is no JSON object")
    return found


def _take(response: Response, line: dict[str, Any]) -> None:
    if line.get("type") == "prompt":
        response.prompt_tokens = len(line["token_ids"])
        return
    if line.get("type") == "summary":
        response.finished = True
        return
    choice, text = int(line.pop("choice")), line.pop("text", None)
    (op,) = load_ops([line])
    if isinstance(op, BudgetOp):
        response.exhausted.setdefault(choice, []).append(str(op.budget))
    elif isinstance(op, ErasedOp | CommittedOp):
        response.choices.setdefault(choice, []).append(Draw(op, text))
