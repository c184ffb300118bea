"""An answer as text: what is printed for good, what is drawn anew, and how."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from e3rl_client import Transcript
from e3rl_client.chat.page import ERASED, PROVISIONAL, Page, harmless, status
from e3rl_client.transcript import Choice
from tests.clients.python.servers import event, healed


def console(width: int = 40, height: int = 10, **more: Any) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, **more)


def choice_after(events: int) -> Choice:
    return Transcript.replay([chunk["healing"] for chunk in healed()[:events]]).choice(0)


def styled(text: Text) -> list[tuple[str, str]]:
    """The text by style."""
    spans = [(text.plain[span.start : span.end], str(span.style)) for span in text.spans if span.style]
    return [(part, style) for part, style in spans if part]


def test_a_draft_is_dim() -> None:
    assert styled(Page().draw(choice_after(2), console())) == [("It is 5.", PROVISIONAL)]


def test_what_was_erased_is_struck_through() -> None:
    drawn = Page().draw(choice_after(3), console())
    assert styled(drawn) == [("It is 5.", ERASED)]


def test_a_redraw_takes_its_place_character_by_character() -> None:
    told = [chunk["healing"] for chunk in healed()[:3]]
    choice = Transcript.replay([*told, event(3, "segment.delta", attempt=1, text="It is")]).choice(0)
    assert styled(Page().draw(choice, console())) == [("It is", PROVISIONAL), (" 5.", ERASED)]


def test_kept_text_is_plain_and_the_erased_gone() -> None:
    drawn = Page().draw(choice_after(5), console())
    assert (drawn.plain, styled(drawn)) == ("It is 4.", [])


def test_without_healing_the_answer_is_final_as_it_comes() -> None:
    assert Page().take_rest(Choice(content="It is 4.")) == "It is 4."


def test_in_shadow_mode_nothing_is_shown_twice() -> None:
    assert Page().draw(Choice(content="It is", live="It is"), console()).plain == "It is"


def test_a_long_draft_shows_its_end() -> None:
    drawn = Page().draw(Choice(live="\n".join(map(str, range(50)))), console(height=10))
    assert drawn.plain.split("\n") == [str(number) for number in range(42, 50)]


def test_no_color_leaves_the_strike() -> None:
    plain = console(no_color=True)
    plain.print(Page().draw(choice_after(3), plain))
    printed = plain.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[9mIt is 5." in printed
    assert "31" not in printed


def test_full_lines_are_printed_once_and_the_rest_drawn_below() -> None:
    page, choice = Page(), Choice(content="one two three four five")
    assert page.take_full_lines(choice, console(width=10)) == "one two three four "
    assert page.take_full_lines(choice, console(width=10)) is None
    assert page.draw(choice, console(width=10)).plain == "five"


@given(st.lists(st.text(st.sampled_from("ab .\n你🙂\t\x1b"), max_size=12), max_size=12), st.integers(2, 12))
def test_every_character_is_printed_once_and_in_order(pieces: list[str], width: int) -> None:
    page, choice, printed = Page(), Choice(), ""
    for piece in pieces:
        choice.content += piece
        lines = page.take_full_lines(choice, console(width))
        printed += "" if lines is None else lines + "\n"
    printed += page.take_rest(choice)
    assert printed.replace("\n", "") == harmless(choice.content).replace("\n", "")


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (2, ""),
        (3, "U 3.00 > 2.00: erased | 1 erasure, 3 tokens | kept 0 tokens"),
        (5, "U 3.00: kept | 1 erasure, 3 tokens | kept 3 tokens"),
        (7, "U 3.00 <= 3.50: kept | 1 erasure, 3 tokens | kept 6 tokens"),
    ],
)
def test_the_status_tells_the_last_verdict_and_sums(events: int, told: str) -> None:
    assert status(choice_after(events)) == told


def test_a_models_escape_sequences_do_not_reach_the_terminal() -> None:
    assert harmless("\x1b[2Ja\tb\n\x07") == "\ufffd[2Ja    b\n\ufffd"
