"""`e3rl chat` between pipes and on a terminal, and one line for each error."""

from __future__ import annotations

import builtins
import socket
from typing import Any

import pytest

from e3rl_server.cli import main
from tests.clients.python.chat.stub import Stub, serving
from tests.clients.python.servers import chunk, healed
from tests.clients.python.terminal import Terminal, piped


def refusal(*flags: str, prompt: str = "2 + 2?") -> str:
    """The one line on standard error of a run that fails."""
    done = piped(*flags, prompt=prompt)
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("e3rl chat: error: ")
    return line.removeprefix("e3rl chat: error: ")


def test_into_a_pipe_goes_final_text_alone() -> None:
    with serving(Stub()) as stub:
        flags = ["--temperature", "0.5", "--max-tokens", "9", "--seed", "3", "--system", "Be brief."]
        done = piped("--url", stub.url, *flags, prompt="2 + 2\nis what?\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "It is 4. Yes.\n", "")
    asked = stub.asked[0]
    assert [message["content"] for message in asked["messages"]] == ["Be brief.", "2 + 2\nis what?\n"]
    assert (asked["model"], asked["temperature"], asked["max_tokens"], asked["seed"]) == ("tiny", 0.5, 9, 3)
    assert asked["healing"] == {"mode": "on", "stream": "live"}


def test_settings_are_json() -> None:
    with serving(Stub()) as stub:
        piped("--url", f"{stub.url}/v1/", "--healing", '{"threshold": {"k": 0}}')
    assert stub.asked[0]["healing"] == {"threshold": {"k": 0}, "stream": "live"}


def test_a_server_that_is_not_there_is_one_line() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert refusal("--url", url) == (
            f"no server answers at {url}: start one with `e3rl serve`, or name another with --url"
        )


def test_a_model_that_is_not_served_is_one_line() -> None:
    with serving(Stub()) as stub:
        assert refusal("--url", stub.url, "--model", "huge") == "--model huge: the server serves tiny"


@pytest.mark.parametrize("models", ["<!doctype html>", '{"hello": "world"}', '{"data": 7}'])
def test_something_else_than_an_openai_server_is_one_line(models: str) -> None:
    with serving(Stub(models=models)) as stub:
        assert stub.url in refusal("--url", stub.url)


@pytest.mark.parametrize(
    ("status", "said"), [(400, "refused by the stub"), (503, "refused by the stub"), (401, "set OPENAI_API_KEY")]
)
def test_what_the_server_refuses_is_one_line(status: int, said: str) -> None:
    with serving(Stub(status=status)) as stub:
        assert said in refusal("--url", stub.url)


def test_a_server_without_healing_gives_its_answer_and_is_named() -> None:
    with serving(Stub([chunk("It is 4."), chunk(finish="stop")])) as stub:
        done = piped("--url", stub.url)
        assert (done.returncode, done.stdout) == (1, "It is 4.")
        assert "answers without healing" in done.stderr
        assert piped("--url", stub.url, "--healing", "off").returncode == 0


def test_an_answer_that_breaks_off_keeps_its_final_text() -> None:
    with serving(Stub(healed()[:6], whole=False)) as stub:
        done = piped("--url", stub.url)
    assert (done.returncode, done.stdout) == (1, "It is 4.")
    assert "ended before the answer did" in done.stderr


def test_an_empty_prompt_is_one_line() -> None:
    with serving(Stub()) as stub:
        assert refusal("--url", stub.url, prompt="\n") == "standard input holds no prompt"


@pytest.mark.parametrize("flags", [["--url", "nowhere"], ["--url", "http://a:b"], ["--healing", "maybe"]])
def test_wrong_flags_are_usage(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["chat", *flags])
    assert flags[1] in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = builtins.__import__

    def without_rich(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("e3rl_client.chat"):
            raise ModuleNotFoundError("No module named 'rich'", name="rich")
        return whole(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    assert main(["chat"]) == 1
    assert capsys.readouterr().err == "e3rl chat: error: rich is not installed: pip install 'e3rl[client]'\n"


# --- on a terminal --------------------------------------------------------------------------------------------------


def test_on_a_terminal_erasures_are_struck_through_and_replaced() -> None:
    with serving(Stub(held=True)) as stub, Terminal("--url", stub.url) as terminal:
        terminal.wait_for("tiny at .*> ")
        terminal.type("2 + 2?\r")
        stub.send(2)
        terminal.wait_for(r"\x1b\[2mIt is 5\.")
        stub.send(1)
        terminal.wait_for(r"\x1b\[9;31mIt is 5\.")
        terminal.wait_for(r"U 3\.00 > 2\.00: erased")
        stub.send(5)
        terminal.wait_for(r"\x1b\[2KIt is 4\. Yes\.\r\n[^\n]*kept 6 tokens[^\n]*\n> ")
        stub.held = False
        terminal.type("And 3 + 3?\r")
        terminal.wait_for(r"kept 6 tokens[^\n]*\n> ")
        terminal.type("\x04")
        assert terminal.exit_status() == 0
    assert [message["content"] for message in stub.asked[1]["messages"]] == ["2 + 2?", "It is 4. Yes.", "And 3 + 3?"]


def test_ctrl_c_stops_the_answer_and_keeps_the_chat() -> None:
    with serving(Stub(held=True)) as stub, Terminal("--url", stub.url) as terminal:
        terminal.wait_for("> ")
        terminal.type("2 + 2?\r")
        stub.send(5)
        terminal.wait_for(r"U 3\.00: kept")
        terminal.type("\x03")
        terminal.wait_for(r"stopped\r\n> ")
        stub.held = False
        stub.send(3)
        terminal.type("And?\r")
        terminal.wait_for(r"kept 6 tokens[^\n]*\n> ")
        terminal.type("\x04")
        assert terminal.exit_status() == 0
    assert [message["content"] for message in stub.asked[1]["messages"]] == ["2 + 2?", "It is 4.", "And?"]


def test_an_error_ends_the_turn_and_not_the_chat() -> None:
    with serving(Stub(healed()[:6], whole=False)) as stub, Terminal("--url", stub.url) as terminal:
        terminal.wait_for("> ")
        terminal.type("2 + 2?\r")
        shown = terminal.wait_for(r"error: the stream ended before the answer did[^\n]*\n.*> ")
        assert "Yes." not in shown[0].rpartition("It is 4.")[2]
        terminal.interrupt_until("> ")
        terminal.type("\x04")
        assert terminal.exit_status() == 0


def test_no_color_is_respected() -> None:
    with serving(Stub(held=True)) as stub, Terminal("--url", stub.url, env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for("> ")
        terminal.type("2 + 2?\r")
        stub.send(3)
        terminal.wait_for(r"\x1b\[9mIt is 5\.")
        stub.send(5)
        terminal.wait_for(r"kept 6 tokens[^\n]*\n> ")


def test_a_dumb_terminal_gets_final_text_alone() -> None:
    with serving(Stub()) as stub, Terminal("--url", stub.url, env={"TERM": "dumb"}) as terminal:
        terminal.wait_for("> ")
        terminal.type("2 + 2?\r")
        shown = terminal.wait_for(r"Yes\.\r\n> ")
        assert "It is 5." not in shown[0] and "\x1b[9" not in shown[0]
