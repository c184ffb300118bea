from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e3rl_server import oplog
from e3rl_server.oplog import LogSettings, OpLog, ResponseLog
from tests.server.test_metrics import committed, erased


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def no_decoder() -> Callable[[int], str]:
    raise AssertionError("there is nothing to decode")


def filled(log: OpLog, response_id: str = "chatcmpl-1") -> ResponseLog:
    response = log.open("model", {"mode": "on"})
    response.begin(response_id)
    response.prompt([1, 2])
    ops = [erased(), committed(token_ids=[5, 6], logprobs=[-1.0, -2.0])]
    response.write(0, ops, "secret", no_decoder)
    return response


def test_a_response_becomes_a_file(tmp_path: Path) -> None:
    log = OpLog(LogSettings(dir=str(tmp_path / "new" / "folder")))
    filled(log).close({"type": "summary", "segments": 1})
    log.flush()
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.name.startswith("chatcmpl-1-")
    assert file.suffix == ".jsonl"
    header, first, second, summary = lines(file)
    assert (header["type"], header["id"], header["model"], header["mode"]) == ("header", "chatcmpl-1", "model", "on")
    assert (first["op"], second["op"], summary["type"]) == ("erased", "committed", "summary")


def test_an_unfinished_response_is_only_partial(tmp_path: Path) -> None:
    log = OpLog(LogSettings(dir=str(tmp_path)))
    filled(log)
    log.flush()
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(".jsonl.partial")


def test_no_text_and_no_token_without_the_text_flag(tmp_path: Path) -> None:
    log = OpLog(LogSettings(dir=str(tmp_path)))
    filled(log).close({"type": "summary"})
    log.flush()
    written = next(tmp_path.iterdir()).read_text("utf-8")
    assert "secret" not in written
    assert "token_ids" not in written
    assert "logprobs" not in written


def test_text_prompt_and_tokens_with_it(tmp_path: Path) -> None:
    log = OpLog(LogSettings(dir=str(tmp_path), text=True))
    filled(log).close({"type": "summary"})
    log.flush()
    _, prompt, _, commit, _ = lines(next(tmp_path.iterdir()))
    assert prompt == {"type": "prompt", "token_ids": [1, 2]}
    assert commit["text"] == "secret"
    assert commit["token_ids"] == [5, 6]


@pytest.mark.parametrize("head", [False, True], ids=["before its commit", "behind its head"])
def test_the_text_of_an_erased_draw_that_comes_with_its_tokens(tmp_path: Path, head: bool) -> None:
    log = OpLog(LogSettings(dir=str(tmp_path), text=True))
    response = log.open("model", {"mode": "on"})
    response.begin("chatcmpl-1")
    draw = erased(segment=int(head)).model_copy(update={"token_ids": [7, 8]})
    response.write(0, [committed(), draw] if head else [draw, committed()], "kept", lambda: "<{}>".format)
    response.close({"type": "summary"})
    log.flush()
    texts = {line["op"]: line["text"] for line in lines(next(tmp_path.iterdir())) if "op" in line}
    assert texts == {"erased": "<7><8>", "committed": "kept"}


def test_a_client_cannot_choose_where_the_file_goes(tmp_path: Path) -> None:
    log = OpLog(LogSettings(dir=str(tmp_path / "log")))
    filled(log, "../../escaped/" + "x" * 300).close({"type": "summary"})
    log.flush()
    (file,) = (tmp_path / "log").iterdir()
    assert file.parent == tmp_path / "log"
    assert len(file.name) < 120


def test_a_disk_error_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(oplog.logger, "warning", lambda message, *_: warnings.append(message))
    log = OpLog(LogSettings(dir=str(tmp_path / "log")))
    (tmp_path / "log").rmdir()
    filled(log).close({"type": "summary"})
    filled(log).close({"type": "summary"})
    log.flush()
    assert len(warnings) == 1
