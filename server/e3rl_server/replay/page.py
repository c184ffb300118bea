"""A response as one HTML file that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from e3rl_server.replay.log import Draw, Response
from e3rl_server.replay.terminal import title

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --faint: #666; --line: #ddd;
  --bad: #b3261e; --good: #2e7d32 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #161616; --faint: #9a9a9a; --line: #3a3a3a; --bad: #ff8a80; --good: #81c784 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.1rem } h2 { font-size: 1rem }
h1, h2, p { margin: .6rem 0 }
section { border-top: 1px solid var(--line); padding: .6rem 0 }
.facts, .note { color: var(--faint); font-size: .85rem }
.text { white-space: pre-wrap; margin: .2rem 0 }
.erased .text { color: var(--bad); text-decoration: line-through }
.bar { position: relative; height: .4rem; margin: .3rem 0 .5rem; background: var(--line); border-radius: .2rem }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--good); border-radius: .2rem }
.over .bar i { background: var(--bad) }
.bar b { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px; background: var(--ink) }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(response: Response) -> str:
    """The page. All that a model or a client wrote is escaped."""
    return "\n".join(_lines(response)) + "\n"


def _lines(response: Response) -> Iterator[str]:
    name = escape(title(response))
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<title>{name}</title>\n<style>{_STYLE}</style>\n<h1>{name}</h1>"
    prompt = "" if response.prompt_tokens is None else f"prompt of {response.prompt_tokens} tokens, "
    yield f'<p class="facts">{escape(prompt + response.sums)}. The bar is U, the mark its threshold.</p>'
    if response.advice:
        yield f'<p class="note">{escape(response.advice)}</p>'
    scale = max((max(draw.op.uncertainty.u, draw.op.threshold) for draw in response.draws), default=0.0) or 1.0
    for choice, draws in sorted(response.choices.items()):
        if len(response.choices) > 1:
            yield f"<h2>Choice {choice}</h2>"
        yield from _checkpoints(draws, scale)
        for budget in response.exhausted.get(choice, []):
            yield f'<p class="note">Budget {escape(budget)} ran out.</p>'


def _checkpoints(draws: list[Draw], scale: float) -> Iterator[str]:
    """A section per segment, with its draws in order."""
    for index, draw in enumerate(draws):
        if index == 0 or draws[index - 1].op.segment != draw.op.segment:
            yield f"{'' if index == 0 else '</section>'}\n<section>"
        yield _draw(draw, scale)
    if draws:
        yield "</section>"


def _draw(draw: Draw, scale: float) -> str:
    op = draw.op
    over = op.uncertainty.u > op.threshold
    verdict = "kept" if draw.kept else "erased"
    facts = (
        f"segment {op.segment}, draw {op.attempt + 1}, {verdict} · {op.tokens} tokens · "
        f"U {op.uncertainty.u:.2f} {'>' if over else '≤'} {op.threshold:.2f}" + (f" · {draw.note}" if draw.note else "")
    )
    text = f'<p class="text">{escape(draw.text)}</p>' if draw.text else ""
    width, mark = 100 * op.uncertainty.u / scale, 100 * op.threshold / scale
    bar = f'<div class="bar"><i style="width:{width:.1f}%"></i><b style="left:{mark:.1f}%"></b></div>'
    return f'<div class="{verdict}{" over" if over else ""}"><div class="facts">{escape(facts)}</div>{bar}{text}</div>'
