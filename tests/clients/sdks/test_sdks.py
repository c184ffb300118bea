"""Clients of others, none of which knows of healing, against a real server on which every answer heals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.sdks.install import CLIENTS, HERE
from tests.e2e.serving import MODEL, serve

pytestmark = pytest.mark.engine

EXAMPLES = HERE.parents[2] / "clients/examples/others"

#: Set by `make test-sdks`: no client may be missing.
REQUIRED = "E3RL_TEST_SDKS"

#: The server's own setting, as no client asks for it: every other segment is erased once.
FORCED = {"healing": {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1}}
NAMES = ["Oslo", "Lima"]
ASKED = {
    "question": "Write a short story about a lighthouse keeper in a town.",
    # Float32 and a seed: two runs of a request draw the same tokens, first draws and redraws.
    "sampling": {"model": MODEL, "temperature": 0, "seed": 7, "max_tokens": 64},
    "schema": {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": NAMES}},
        "required": ["name"],
        "additionalProperties": False,
    },
}
JSON = {"content-type": "application/json"}
#: Longer than any of them waits of its own accord before it tries again, seconds.
RETRY_AFTER = 3


class Busy(ThreadingHTTPServer):
    """Stub of a gateway in front of the server: refuses the first request with 429, and passes the others on."""

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _BusyHandler)
        self.behind = url
        self.asked: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _BusyHandler(BaseHTTPRequestHandler):
    server: Busy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(time.monotonic())
        if len(self.server.asked) == 1:
            self.send_response(429)
            self.send_header("retry-after", str(RETRY_AFTER))
            answer = json.dumps({"error": {"message": "busy", "type": "rate_limit", "code": 429}}).encode()
        else:
            passed = httpx.post(self.server.behind + self.path, content=body, headers=JSON, timeout=120)
            self.send_response(passed.status_code)
            answer = passed.content
        self.send_header("content-type", JSON["content-type"])
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    flags = ("--healing", "on", "--dtype", "float32", "--additional-config", json.dumps(FORCED))
    # Else the model, which is small, writes arguments that are no object wherever a client does not say "strict".
    with serve(*flags, "--tool-strict-level", "parameter", log=tmp_path_factory.mktemp("server") / "log") as server:
        yield server.url


@pytest.fixture(
    scope="module",
    params=[*sorted(HERE.glob("python/*.py")), *sorted(HERE.glob("npm/*.mjs"))],
    ids=lambda path: path.stem,
)
def heard(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one client got, and with it: the erasures meanwhile, and when the stub was asked."""
    script: Path = request.param
    command = [*_command(script.stem, script.suffix), str(script)]
    url = request.getfixturevalue("url")
    busy = Busy(url)
    threading.Thread(target=busy.serve_forever, daemon=True).start()
    before = _erasures(url)
    asked = json.dumps({**ASKED, "url": f"{url}/v1", "busy_url": f"{busy.url}/v1"})
    done = subprocess.run([*command, asked], capture_output=True, text=True, timeout=300)
    busy.shutdown()
    busy.server_close()
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    return {**got, "erasures": _erasures(url) - before, "asked": busy.asked}


def _command(client: str, suffix: str) -> list[str]:
    """What runs a script in the environment of a client; the test is skipped, or fails, where there is none."""
    if suffix == ".mjs":
        command, needed = ["node"], HERE / "npm/node_modules"
    else:  # -P: a script may bear the name of what it imports
        command = [str(needed := CLIENTS / client / "bin/python"), "-P"]
    if not needed.exists():
        why = f"{client} is not installed: `make test-sdks` installs it"
        pytest.fail(why) if os.environ.get(REQUIRED) else pytest.skip(why)
    return command


def _erasures(url: str) -> float:
    return sum(map(float, re.findall(r"^e3rl_erasures_total\{.*\} (\S+)$", httpx.get(f"{url}/metrics").text, re.M)))


def test_a_stream_brings_the_answer_in_pieces(heard: dict[str, Any]) -> None:
    assert "".join(heard["streamed"]) == heard["answer"] != ""
    assert len([piece for piece in heard["streamed"] if piece]) > 1
    assert heard["erasures"] >= 2 * 4  # at the very least those of the answer and of the stream: 8 segments each


def test_usage_counts_what_was_kept(heard: dict[str, Any]) -> None:
    assert heard["usage"] == heard["streamed_usage"] == ASKED["sampling"]["max_tokens"]  # type: ignore[index]


def test_a_forced_tool_is_called(heard: dict[str, Any]) -> None:
    name, arguments = heard["tool"]
    assert name == "Place"
    assert list(arguments) == ["name"] and arguments["name"] in NAMES


def test_a_schema_is_kept(heard: dict[str, Any]) -> None:
    assert list(heard["object"]) == ["name"] and heard["object"]["name"] in NAMES


def test_a_busy_server_is_asked_again(heard: dict[str, Any]) -> None:
    assert heard["retried"] == heard["answer"]
    first, second = heard["asked"]
    assert second - first >= RETRY_AFTER


@pytest.mark.parametrize(
    ("example", "client"), [("langchain_chat.py", "langchain-openai"), ("ai-sdk.mjs", "ai")], ids=["langchain", "ai"]
)
def test_an_example_runs(request: pytest.FixtureRequest, example: str, client: str) -> None:
    script = EXAMPLES / example
    command = _command(client, script.suffix)
    if script.suffix == ".mjs":  # read as if it lay beside node_modules
        command += ["--input-type=module"]
    url = request.getfixturevalue("url")
    with script.open() as source:
        done = subprocess.run(
            [*command, "-", url], stdin=source, cwd=HERE / "npm", capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10
