"""Small parts of a start: plugin names, failure reports, memory, ports, the banner."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import pytest
from pydantic import BaseModel, model_validator

from e3rl_core.errors import ModelError
from e3rl_server import preflight
from e3rl_server.banner import banner, url_of
from e3rl_server.deployment import Healing
from e3rl_server.memory import available_memory
from e3rl_server.plugins import plugin_names
from e3rl_server.startup import recorded_failures, register, sentence_of

GIB = preflight.GIB


def test_other_peoples_plugins_stay_named() -> None:
    names = plugin_names(healing=True, users=None).split(",")
    assert {"e3rl", "e3rl_health", "e3rl_startup", "lora_filesystem_resolver"} <= set(names)


def test_off_leaves_the_healing_plugin_out() -> None:
    assert "e3rl" not in plugin_names(healing=False, users="e3rl,theirs").split(",")


def test_the_users_choice_is_added_to() -> None:
    assert plugin_names(healing=True, users="theirs") == "e3rl,e3rl_api,e3rl_health,e3rl_playground,e3rl_startup,theirs"


def test_the_first_failure_is_the_cause() -> None:
    logger = logging.getLogger("vllm.v1.engine.core")
    with recorded_failures() as failures:
        register()
        register()
        assert failures.cause() is None
        for message in ("no\n room", "later"):
            try:
                raise ValueError(message)
            except ValueError:
                logger.exception("failed")
        assert failures.cause() == "no room"
    logger.handlers.clear()


class Config(BaseModel):
    heads: int

    @model_validator(mode="after")
    def _divisible(self) -> Config:
        if self.heads % 2:
            raise ValueError("heads must be\n divisible by 2")
        return self


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [(9, "heads must be divisible by 2"), ("many", "heads: Input should be a valid integer")],
)
def test_a_pydantic_report_is_its_first_sentence(heads: object, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Config(heads=heads)
    assert sentence_of(caught.value).startswith(sentence)
    assert "pydantic.dev" not in sentence_of(caught.value)


def test_an_error_without_a_message_is_its_name() -> None:
    assert sentence_of(RuntimeError()) == "RuntimeError"


def test_without_a_start_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E3RL_STARTUP_FAILURES", raising=False)
    register()
    assert logging.getLogger("vllm.v1.engine.core").handlers == []


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_memory(tmp_path) == 2000


def test_no_limit_means_the_machines_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 2000


@pytest.mark.parametrize(
    ("available", "weights", "kv"),
    [(20 * GIB, 4 * GIB, 4 * GIB), (200 * GIB, 0, 8 * GIB), (GIB, GIB, GIB // 4)],
)
def test_the_default_kv_cache(available: int, weights: int, kv: int) -> None:
    assert preflight.default_kv_bytes(available, weights) == kv


def test_weights_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"12")
    (tmp_path / "b.safetensors").write_bytes(b"345")
    (tmp_path / "same.bin").write_bytes(b"1234")
    assert preflight.weights_size(str(tmp_path)) == 5
    assert preflight.weights_size("on/the-hub") == 0


def test_a_free_port_passes() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    preflight.check_port("127.0.0.1", port)


def test_somebody_elses_address_is_refused() -> None:
    with pytest.raises(preflight.PortError, match=r"192\.0\.2\.77"):
        preflight.check_port("192.0.2.77", 0)


@pytest.mark.parametrize(("key", "why"), [("", "is empty"), ("hush\n", "white space"), (" hush", "white space")])
def test_a_key_that_keeps_nobody_out_or_everybody_is_refused_and_not_told(key: str, why: str) -> None:
    with pytest.raises(preflight.ApiKeyError, match=f"VLLM_API_KEY .*{why}") as refused:
        preflight.check_api_key(key)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("key", [None, "a key"])
def test_a_key_or_none_is_taken(key: str | None) -> None:
    preflight.check_api_key(key)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "no config.json"), ("[", "is not JSON"), ("[]", "not a JSON object")]
)
def test_a_folder_that_is_no_model(content: str | None, why: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=why):
        preflight.model_config(str(tmp_path))


def test_a_name_nobody_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="was not found"):
        preflight.model_config("nobody/nothing", cache=str(tmp_path))
    assert preflight.profile_beside("nobody/nothing", cache=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("host", "uds", "tls", "url"),
    [
        ("127.0.0.1", None, False, "http://127.0.0.1:80"),
        ("0.0.0.0", None, True, "https://127.0.0.1:80"),
        ("::1", None, False, "http://[::1]:80"),
        (None, None, False, "http://127.0.0.1:80"),
        ("x", "/run/s", False, "unix:/run/s"),
    ],
)
def test_the_url_reaches_it(host: str | None, uds: str | None, tls: bool, url: str) -> None:
    assert url_of(host, 80, uds, tls) == url


def test_the_banner_says_mode_and_why() -> None:
    text = banner("m", Healing("on", "because", "paper", Path("p.json"), {}, None), "http://h:1")
    assert "healing  on: because" in text
    assert "preset   paper" in text
    assert "profile  p.json" in text
    assert "curl http://h:1/v1/chat/completions" in text


def test_the_banner_never_shows_a_key() -> None:
    assert "YOUR_KEY" in banner("m", Healing("off", "asked", "none", None, {}, None), "http://h:1", api_key=True)


@pytest.mark.parametrize("playground", [True, False])
def test_the_banner_leads_to_the_playground_if_there_is_one(playground: bool) -> None:
    text = banner("m", Healing("off", "asked", "none", None, {}, None), "http://h:1", playground=playground)
    assert ("http://h:1/playground\n" in text) is playground


def test_the_banners_curl_is_valid_json() -> None:
    text = banner("m", Healing("off", "asked", "none", None, {}, None), "http://h:1")
    assert json.loads(text.split(" -d '")[1].rstrip("'\n"))["model"] == "m"


def test_the_failure_file_is_forgotten() -> None:
    with recorded_failures():
        assert "E3RL_STARTUP_FAILURES" in os.environ
    assert "E3RL_STARTUP_FAILURES" not in os.environ
