"""The image, really run as docs/deploy.md says: `make test-image` names it, and a Docker engine has to be there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.docker.container import (
    IMAGE,
    START_TIMEOUT,
    URL,
    check_that_a_stream_survives,
    docker,
    inspect,
    needs_image,
)
from tests.deploy.helm.test_served import smoke
from tests.deploy.tools import run

pytestmark = [pytest.mark.engine, needs_image]

HARDENED = [
    *("--network", "host", "--read-only", "--tmpfs", "/tmp", "--shm-size", "1g"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--env", "OMP_NUM_THREADS", "--env", "VLLM_CPU_OMP_THREADS_BIND"),  # as this machine has them, if it has
]
SERVE = ["serve", "--host", "127.0.0.1", "--healing", "on", "--max-model-len", "2048", "--kv-cache-memory-bytes", "1G"]


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
    check_that_a_stream_survives(lambda: docker("stop", "--time", "45", container))
    assert inspect(container)["State"]["ExitCode"] == 0


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


def test_a_secret_without_a_key_is_told_in_the_last_line() -> None:
    status, line = last_words("--env", "VLLM_API_KEY=", IMAGE)
    assert status == 1
    assert line.startswith("e3rl serve: error: VLLM_API_KEY is empty")


def test_it_is_made_as_structure_yaml_says() -> None:
    config = Path(__file__).parent / "structure.yaml"
    done = run("container-structure-test", "test", "--image", IMAGE, "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_image_says_of_itself() -> None:
    config = inspect(IMAGE)["Config"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == "e3rl" and labels["licenses"] == "Apache-2.0"
    assert f"e3rl:{labels['version']}-" in IMAGE and len(labels["revision"]) == 40
