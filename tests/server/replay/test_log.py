"""Reading an op log back, and every way a file can be no op log."""

from __future__ import annotations

from pathlib import Path

import pytest

from e3rl_core.errors import EventError
from e3rl_server.replay.log import logs_in, read
from tests.server.replay.logs import LAST, RIGHT, WRONG, written


def test_draws_stand_in_order_with_their_text(tmp_path: Path) -> None:
    response = read(written(tmp_path))
    assert (response.id, response.model, response.mode, response.prompt_tokens) == ("chatcmpl-1", "tiny", "on", 3)
    assert [(draw.kept, draw.text) for draw in response.choices[0]] == [(False, WRONG), (True, RIGHT), (True, LAST)]
    assert response.exhausted == {0: ["erased_fraction"]}
    assert response.sums == "kept 2 segments (12 tokens), erased 1 draws (8 tokens), mean U 1.00 nats"
    assert (response.finished, response.advice) == (True, "")


def test_in_shadow_mode_what_would_be_erased_is_counted(tmp_path: Path) -> None:
    response = read(written(tmp_path, mode="shadow"))
    assert response.sums == "kept 2 segments (12 tokens), would erase 1, mean U 1.00 nats"


def test_notes_tell_why(tmp_path: Path) -> None:
    first, second, third = read(written(tmp_path)).choices[0]
    assert (first.note, second.note) == ("uncertainty", "")
    assert third.note == "uncertainty, but erased_fraction is reached"


def test_a_log_without_text_says_how_to_get_it(tmp_path: Path) -> None:
    response = read(written(tmp_path, text=False))
    assert [draw.text for draw in response.choices[0]] == [None, None, None]
    assert "--healing-log-text" in response.advice


def test_choices_are_kept_apart(tmp_path: Path) -> None:
    assert [len(draws) for draws in read(written(tmp_path, choices=3)).choices.values()] == [3, 3, 3]


def test_an_unfinished_log_is_read_up_to_the_line_being_written(tmp_path: Path) -> None:
    path = written(tmp_path, finished=False)
    path.write_text(path.read_text() + '{"choice":0,"op":"comm')
    response = read(path)
    assert len(response.choices[0]) == 3
    assert "not over" in response.advice


def test_a_line_ends_at_its_line_feed_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text("utf-8").replace("four.", "four\u2028\x85."), "utf-8")
    assert read(path).choices[0][1].text == RIGHT.replace("four.", "four\u2028\x85.")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"absent\.jsonl: cannot be read \(No such file"):
        read(tmp_path / "absent.jsonl")


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[]\n", b'{"question": "2+2?"}\n', b'{"type": "header"}\n'])
def test_a_foreign_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(EventError, match="does not begin with a header"):
        read(tmp_path / "x.jsonl")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(EventError, match="is not text"):
        read(tmp_path / "x.jsonl")


@pytest.mark.parametrize("line", ["{", "[]", '{"op": "erased"}', '{"choice": 0, "op": "new"}', '{"type": "prompt"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = written(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(EventError, match=r"line 3 is damaged \(") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_folders_logs_without_other_files(tmp_path: Path) -> None:
    first, second = written(tmp_path), written(tmp_path, finished=False)
    (tmp_path / "notes.txt").touch()
    assert set(logs_in(tmp_path)) == {first, second}
