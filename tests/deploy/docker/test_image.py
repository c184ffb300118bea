"""The image, really run as docs/deployment.md says: `make test-image` names it, and a Docker engine has to be there."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.deploy.helm.test_served import smoke
from tests.e2e.serving import MODEL

IMAGE = os.environ.get("E3RL_TEST_IMAGE", "")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not IMAGE, reason="no image to run: `make image test-image` builds and runs one"),
]

URL = "http://127.0.0.1:8000"  # where the image's health check looks
HARDENED = [
    *("--network", "host", "--read-only", "--tmpfs", "/tmp", "--shm-size", "1g"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--env", "OMP_NUM_THREADS", "--env", "VLLM_CPU_OMP_THREADS_BIND"),  # as this machine has them, if it has
]
SERVE = ["serve", "--host", "127.0.0.1", "--healing", "on", "--max-model-len", "2048", "--kv-cache-memory-bytes", "1G"]

#: Seconds: the first start in a new volume converts the embedded model.
START_TIMEOUT = 300.0


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def inspect(name: str) -> Any:
    return json.loads(docker("inspect", name).stdout)[0]


@pytest.fixture(scope="module")
def volume() -> Iterator[str]:
    name = docker("volume", "create").stdout.strip()
    yield name
    docker("volume", "rm", name)


@pytest.fixture
def container(volume: str) -> Iterator[str]:
    """A healthy one."""
    name = docker("run", "--detach", *HARDENED, "--volume", f"{volume}:/cache", IMAGE, *SERVE).stdout.strip()
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while (state := inspect(name)["State"])["Health"]["Status"] != "healthy":
            logs = docker("logs", "--tail", "30", name)
            assert state["Running"] and time.monotonic() < deadline, logs.stdout + logs.stderr
            time.sleep(1)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def test_it_heals_and_a_stop_in_mid_stream_ends_it_whole(container: str) -> None:
    for check in ("models", "completion", "healing", "metrics"):
        done = smoke(check, URL)
        assert done.returncode == 0, done.stderr

    lines: list[str] = []
    started = threading.Event()
    stream = threading.Thread(target=read_story, args=(lines, started))
    stream.start()
    assert started.wait(60)
    docker("stop", "--time", "45", container)
    stream.join(10)
    assert [line for line in lines if line][-1] == "data: [DONE]"
    assert json.loads([line for line in lines if line][-2].removeprefix("data: "))["healing"]["type"] == "summary"
    assert inspect(container)["State"]["ExitCode"] == 0


def read_story(lines: list[str], started: threading.Event) -> None:
    story = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": True, "stream": True,
             "healing": {"stream": "live"}}  # fmt: skip
    with httpx.stream("POST", f"{URL}/v1/completions", json=story, timeout=120) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            started.set()


def last_words(*arguments: str) -> tuple[int, str]:
    """The exit status of a start that fails, and the last line of its log."""
    done = docker("run", "--rm", *HARDENED, *arguments, check=False)
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_cache_that_cannot_be_written_is_told_in_the_last_line() -> None:
    status, line = last_words("--tmpfs", "/cache:mode=0555", IMAGE)
    assert status == 1
    assert line.startswith("e3rl serve: error: ") and "/cache" in line


def test_an_unknown_model_is_told_in_the_last_line() -> None:
    status, line = last_words(IMAGE, "serve", "/models/none")
    assert (status, line) == (1, "e3rl serve: error: model /models/none was not found: there is no such folder")


def test_what_the_image_says_of_itself() -> None:
    config = inspect(IMAGE)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["e3rl"]
    assert config["Volumes"] == {"/cache": {}}
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == "e3rl" and labels["licenses"] == "Apache-2.0"
    assert f"e3rl:{labels['version']}-" in IMAGE and len(labels["revision"]) == 40
