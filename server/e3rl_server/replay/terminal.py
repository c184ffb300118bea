"""A response on a terminal: what was kept as it is, what was erased in red and struck through."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime

from e3rl_server.replay.log import Draw, Response

_RESET, _BOLD, _DIM, _ERASED = "\033[0m", "\033[1m", "\033[2m", "\033[31;9m"
#: Erased text stands behind this where there is no colour, kept text behind as many spaces.
_MARK = "- "


def render(response: Response, *, colour: bool, width: int) -> str:
    """The response as lines of about `width` characters; `colour`: with ANSI escapes."""
    return "\n".join(_lines(response, colour, width)) + "\n"


def title(response: Response) -> str:
    """Which response it is."""
    when = datetime.fromtimestamp(response.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return _harmless(f"{response.id} · {response.model} · healing {response.mode} · {when}")


def _lines(response: Response, colour: bool, width: int) -> Iterator[str]:
    yield _styled(title(response), _BOLD, colour)
    prompt = "" if response.prompt_tokens is None else f"prompt of {response.prompt_tokens} tokens, "
    yield prompt + response.sums
    for choice, draws in sorted(response.choices.items()):
        if len(response.choices) > 1:
            yield ""
            yield _styled(f"choice {choice}", _BOLD, colour)
        for draw in draws:
            yield from _draw(draw, colour, width)
        for budget in response.exhausted.get(choice, []):
            yield _styled(f"budget {budget} ran out", _DIM, colour)
    if response.advice:
        yield ""
        yield response.advice


def _draw(draw: Draw, colour: bool, width: int) -> Iterator[str]:
    op = draw.op
    sign = ">" if op.uncertainty.u > op.threshold else "<="
    verdict = "kept" if draw.kept else "erased"
    if op.attempt == 0:
        yield ""
    line = (
        f"segment {op.segment}  draw {op.attempt + 1}  {verdict:6}  {op.tokens:3} tokens  "
        f"U {op.uncertainty.u:.2f} {sign} {op.threshold:.2f}  {draw.note}"
    )
    yield _styled(line.rstrip(), _DIM, colour)
    mark = "  " if draw.kept or colour else _MARK
    for row in _harmless(draw.text or "").splitlines():
        for part in textwrap.wrap(row, max(20, width - 4), drop_whitespace=False) or [""]:
            yield (mark + (part if draw.kept else _styled(part.rstrip(), _ERASED, colour))).rstrip()


def _styled(text: str, style: str, colour: bool) -> str:
    return f"{style}{text}{_RESET}" if colour and text else text


def _harmless(text: str) -> str:
    """Without what could command a terminal: models and clients write what they like."""
    return "".join(sign if sign in "\n\t" or sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
