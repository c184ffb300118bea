"""`e3rl replay`: the terminal, the page, a folder of logs, and one line for an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from e3rl_server.cli import main
from e3rl_server.replay import page, terminal
from e3rl_server.replay.log import read
from tests.server.replay.logs import RIGHT, WRONG, written


def test_without_a_terminal_there_is_no_escape_and_erased_text_is_marked(tmp_path: Path) -> None:
    path = written(tmp_path)
    shown = terminal.render(read(path), colour=False, width=80)
    assert "\x1b" not in shown
    assert f"\n- {WRONG}\n" in shown and f"\n  {RIGHT}\n" in shown
    assert "segment 0  draw 1  erased    8 tokens  U 3.00 > 1.00  uncertainty" in shown


def test_on_a_terminal_erased_text_is_red_and_struck_through(tmp_path: Path) -> None:
    shown = terminal.render(read(written(tmp_path)), colour=True, width=80)
    assert f"\x1b[31;9m{WRONG}\x1b[0m" in shown
    assert f"  {RIGHT}\n" in shown


def test_a_models_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    shown = terminal.render(read(written(tmp_path)), colour=True, width=80)
    assert "\x1b[2J" not in shown and "Yes\ufffd[2J." in shown


def test_long_text_is_wrapped(tmp_path: Path) -> None:
    shown = terminal.render(read(written(tmp_path)), colour=False, width=24)
    assert "\n- Two & two <b>is</b>\n- five.\n" in shown


def test_several_choices_have_headings(tmp_path: Path) -> None:
    response = read(written(tmp_path, choices=2))
    assert "\nchoice 1\n" in terminal.render(response, colour=False, width=80)
    assert "<h2>Choice 1</h2>" in page.render(response)


def test_the_page_escapes_text_and_loads_nothing(tmp_path: Path) -> None:
    shown = page.render(read(written(tmp_path)))
    assert "Two &amp; two &lt;b&gt;is&lt;/b&gt; five." in shown and "<b>is" not in shown
    assert not re.search(r"src=|href=|url\(|@import|<script", shown)
    assert "prefers-color-scheme: dark" in shown and 'name="viewport"' in shown
    assert shown.count("<section>") == shown.count("</section>") == 2


def test_bars_stay_within_the_page(tmp_path: Path) -> None:
    shown = page.render(read(written(tmp_path)))
    assert {float(share) for share in re.findall(r"(?:width|left):([\d.]+)%", shown)} == {100.0, 33.3, 40.0}


def test_a_log_without_text_shows_figures_and_says_how_to_get_text(tmp_path: Path) -> None:
    response = read(written(tmp_path, text=False))
    for shown in (terminal.render(response, colour=False, width=80), page.render(response)):
        assert "U 3.00" in shown and "--healing-log-text" in shown


def test_the_command_shows_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(written(tmp_path))]) == 0
    assert "chatcmpl-1 · tiny · healing on" in capsys.readouterr().out


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert main(["replay", str(written(tmp_path)), "--html", str(target)]) == 0
    assert target.read_text("utf-8").startswith("<!doctype html>")


def test_a_folder_is_listed_and_one_of_it_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path)
    written(tmp_path, text=False)
    assert main(["replay", str(tmp_path)]) == 0
    listing = capsys.readouterr().out
    assert "   2  chatcmpl-1" in listing and "--response N" in listing
    assert main(["replay", str(tmp_path), "--response", "2"]) == 0
    assert "This log has no text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["{}/absent.jsonl"], "absent.jsonl: cannot be read"),
        (["{}"], "holds no log"),
        (["{}/logs", "--response", "3"], "holds 1 responses"),
        (["{}/logs", "--html", "{}/no/where.html"], "where.html: cannot be written"),
    ],
)
def test_an_error_is_one_line(argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "logs" in argv[0]:
        (tmp_path / "logs").mkdir()
        written(tmp_path / "logs")
    assert main(["replay", *(one.format(tmp_path) for one in argv)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("e3rl replay: error: ") and says in error and error.count("\n") == 1


def test_the_log_of_one_response_has_no_third(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(written(tmp_path)), "--response", "3"]) == 1
    assert "is the log of one response" in capsys.readouterr().err
