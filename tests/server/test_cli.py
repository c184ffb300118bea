"""The command line up to the engine: what is refused, in which words, with which status."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from e3rl_core import __version__
from e3rl_core.profile import Profile
from e3rl_server import serve as serving
from e3rl_server.cli import main
from e3rl_server.deployment import SCHEDULER


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line a refused start leaves on stderr."""
    assert main(["serve", *argv]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 1, lines
    assert lines[0].startswith("e3rl serve: error: ")
    return lines[0]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"e3rl {__version__}\n"


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "--healing off|shadow|on" in said and "e3rl train RECIPE" in said and "e3rl eval (--url" in said


@pytest.mark.parametrize("argv", [[], ["nonsense"]])
def test_no_or_unknown_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "e3rl serve" in capsys.readouterr().err


def test_a_taken_port_is_refused_at_once(taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "--port", str(taken_port))
    assert f"127.0.0.1:{taken_port} (address already in use)" in line
    assert "--port" in line


def test_an_impossible_port_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port 70000 is not a port" in refusal(capsys, "--port", "70000")


def test_a_missing_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refusal(capsys, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "why"),
    [("garbage", "is not JSON"), ("{}", "mean: Field required"), ('{"mean": [1], "std": [-1]}', "cannot be negative")],
)
def test_a_corrupt_profile_is_refused(text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(text)
    line = refusal(capsys, "--profile", str(profile))
    assert str(profile) in line
    assert why in line


def test_a_failure_while_settling_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_prepare_environment", lambda healing: None)
    monkeypatch.setattr(serving, "_parse", lambda argv: (_ for _ in ()).throw(ValueError("two\n  lines")))
    assert refusal(capsys, "--port", "0").endswith("error: two lines")


def test_a_signal_before_the_engine_ends_quietly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_prepare_environment", lambda healing: None)
    monkeypatch.setattr(serving, "_parse", lambda argv: serving._stop())
    assert main(["serve", "--port", "0"]) == 143
    assert capsys.readouterr().err == ""


# --- flags, with vLLM's own parser ----------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = {
        "model_type": "llama",
        "vocab_size": 9,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def settled(*argv: str) -> argparse.Namespace:
    args = serving._parse([*argv, "--port", "0"])
    serving._settle(args)
    return args


def test_defaults_are_safe(model: Path) -> None:
    args = settled(str(model))
    assert args.host == "127.0.0.1"
    assert args.shutdown_timeout == 30
    assert args.max_num_queued_reqs > 0
    assert args.middleware == ["e3rl_server.limits.Limits"]
    assert not args.trust_request_chat_template
    assert not args.enable_log_requests


def test_the_banner_names_the_playground_unless_it_is_off(model: Path) -> None:
    assert "/playground" in settled(str(model)).e3rl_banner
    assert "/playground" not in settled(str(model), "--no-playground").e3rl_banner


def test_the_users_flags_win(model: Path) -> None:
    args = settled(
        str(model), "--host=0.0.0.0", "--shutdown-timeout=5", "--max_num_queued_reqs", "7", "--no-enforce-eager"
    )
    assert (args.host, args.shutdown_timeout, args.max_num_queued_reqs) == ("0.0.0.0", 5, 7)
    assert args.enforce_eager is False


def test_a_config_file_wins_over_defaults(model: Path, tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("shutdown-timeout: 3\nhealing: 'on'\n")
    args = settled(str(model), "--config", str(config))
    assert args.shutdown_timeout == 3
    assert args.additional_config["healing"]["mode"] == "on"


def test_flags_before_the_model(model: Path) -> None:
    assert settled("--max-model-len", "512", str(model)).model_tag == str(model)


def test_healing_off_leaves_vllm_alone(model: Path) -> None:
    args = settled(str(model), "--healing", "off", "--additional-config", '{"theirs": 1}')
    assert args.scheduler_cls is None
    assert args.additional_config == {"theirs": 1}


def test_healing_on_brings_its_scheduler_and_settings(model: Path) -> None:
    args = settled(str(model), "--healing", "on", "--healing-preset", "paper", "--additional-config", '{"theirs": 1}')
    assert args.scheduler_cls == SCHEDULER
    assert args.additional_config == {"theirs": 1, "healing": {"mode": "on", "preset": "paper"}}


def test_a_profile_beside_the_model_turns_healing_on(model: Path) -> None:
    Profile(mean=(1.0,), std=(0.5,), model="llama-9-8-1-1").save(model / "healing_profile.json")
    assert settled(str(model)).additional_config["healing"]["mode"] == "on"


def test_too_little_memory_names_the_flag(model: Path) -> None:
    from e3rl_server.preflight import MemoryShortage

    with pytest.raises(MemoryShortage, match="--kv-cache-memory-bytes"):
        settled(str(model), "--kv-cache-memory-bytes", "9000G")


def test_a_key_from_the_environment_is_checked_where_no_flag_brings_one(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from e3rl_server.preflight import ApiKeyError

    monkeypatch.setenv("VLLM_API_KEY", "")
    assert "YOUR_KEY" in settled(str(model), "--api-key", "a-key").e3rl_banner
    with pytest.raises(ApiKeyError, match="VLLM_API_KEY is empty"):
        settled(str(model))
    monkeypatch.setenv("VLLM_API_KEY", "a-key")
    assert "YOUR_KEY" in settled(str(model)).e3rl_banner


def test_train_is_the_training_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    import e3rl_training.cli

    monkeypatch.setattr(e3rl_training.cli, "main", lambda argv: len(argv))
    assert main(["train", "recipe.yaml", "--dry-run"]) == 2


def test_calibrate_is_the_training_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    import e3rl_training.calibration.cli

    monkeypatch.setattr(e3rl_training.calibration.cli, "main", lambda argv: len(argv))
    assert main(["calibrate", "MODEL", "--data", "x.jsonl"]) == 3
