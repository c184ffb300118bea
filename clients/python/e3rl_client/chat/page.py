"""An answer as text to print: what is final plain, what is provisional dim, what was erased struck through.

Lines of final text that are full never change again: they are printed once and scroll away. The rest is drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from e3rl_client.transcript import Choice, ErasedDraw, Segment

PROVISIONAL, ERASED, STATUS = "dim", "red strike", "dim"


@dataclass
class Page:
    """One answer on its way to the terminal. `printed`: characters of its final text that are there already."""

    printed: int = 0

    def take_full_lines(self, choice: Choice, console: Console) -> str | None:
        """Final text that fills whole lines and was not printed yet; it is printed now. None: there is no such text."""
        rest = _final(choice)[self.printed :]
        last = Text(rest).wrap(console, console.width)[-1].plain if rest else ""
        full = rest[: len(rest) - len(last)]
        if not full.strip(" ") or not rest.endswith(last):  # blanks at a line's end are cut off: wait for more
            return None
        self.printed += len(full)
        return full.removesuffix("\n")

    def take_rest(self, choice: Choice) -> str:
        """All final text that has not been printed; it is printed now."""
        rest = _final(choice)[self.printed :]
        self.printed += len(rest)
        return rest

    def draw(self, choice: Choice, console: Console) -> Text:
        """What stands below the full lines; of a long draw as much as fits, the end of it."""
        text = Text(_final(choice)[self.printed :])
        text.append(harmless(choice.live), PROVISIONAL)
        if choice.erased:  # a redraw takes the place of what was erased, character by character
            text.append(harmless(choice.erased[-1].text[len(choice.live) :]), ERASED)
        lines = text.wrap(console, console.width)
        return Text("\n").join(lines[-max(1, console.height - 2) :])


def status(choice: Choice) -> str:
    """The last verdict, and sums over the answer so far; empty before the first verdict."""
    erased = [draw for segment in choice.segments for draw in segment.erased] + list(choice.erased)
    if choice.erased:
        verdict = f"{_score(choice.erased[-1])}: erased"
    elif choice.segments:
        verdict = f"{_score(choice.segments[-1])}: kept"
    else:
        return ""
    kept = sum(segment.tokens for segment in choice.segments)
    return f"{verdict} | {len(erased)} {_plural('erasure', erased)}, {_tokens(erased)} tokens | kept {kept} tokens"


def harmless(text: str) -> str:
    """Without what could command a terminal: models write what they like."""
    signs = text.replace("\t", "    ")
    return "".join(sign if sign == "\n" or sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in signs)


def _final(choice: Choice) -> str:
    told = choice.segments or choice.erased or choice.live  # else healing is off
    return harmless(choice.committed if told else choice.content)


def _score(draw: ErasedDraw | Segment) -> str:
    if draw.threshold is None:
        return f"U {draw.uncertainty.u:.2f}"
    sign = ">" if draw.uncertainty.u > draw.threshold else "<="
    return f"U {draw.uncertainty.u:.2f} {sign} {draw.threshold:.2f}"


def _tokens(draws: Iterable[ErasedDraw]) -> int:
    return sum(draw.tokens for draw in draws)


def _plural(noun: str, things: list[ErasedDraw]) -> str:
    return noun if len(things) == 1 else f"{noun}s"
