"""What the chart runs, really run: its command line by the server's parser, `helm test`'s script on a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e3rl_server import serve as serving
from tests.deploy.helm.chart import CHART, MATRIX, render
from tests.e2e.serving import Server, serve

pytestmark = pytest.mark.engine

KEY = "a-key-of-this-test"


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_the_server_knows_every_flag(values: dict[str, Any]) -> None:
    command, *arguments = render(values).server["args"]
    parsed = serving._parse(arguments)
    assert command == "serve"
    assert (parsed.host, parsed.port) == ("0.0.0.0", 8000)
    assert parsed.healing == (values.get("healing", {}).get("mode") or None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = [arg for arg in render().server["args"][1:] if not arg.startswith(("--host", "--port"))]
    with serve(*flags, log=tmp_path_factory.mktemp("server") / "log", env={"VLLM_API_KEY": KEY}) as running:
        yield running


def smoke(check: str, url: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    script: Path = CHART / "files/smoke.py"
    environment = {**os.environ, "API_KEY": key}
    return subprocess.run([sys.executable, script, check, url], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("check", ["models", "completion", "healing", "metrics"])
def test_helm_test_passes(server: Server, check: str) -> None:
    done = smoke(check, server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{check}: ")


def test_helm_test_fails_in_one_line(server: Server) -> None:
    denied = smoke("completion", server.url, key="another")
    assert denied.returncode == 1
    assert "401" in denied.stderr and "Traceback" not in denied.stderr
