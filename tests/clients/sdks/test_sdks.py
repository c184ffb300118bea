"""Clients of others, none of which knows of healing, against a real server on which every answer heals."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from e3rl_core.embedded.model import embedded_model
from tests.clients.sdks.install import CLIENTS, HERE
from tests.e2e.serving import MODEL, serve

pytestmark = pytest.mark.engine

EXAMPLES = HERE.parents[2] / "clients/examples/others"

#: Set by `make test-sdks`: no client may be missing.
REQUIRED = "E3RL_TEST_SDKS"

#: The server's own setting, as no client asks for it: every other segment is erased once.
FORCED = {"healing": {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1}}
NAMES = ["Oslo", "Lima"]
ASKED: dict[str, Any] = {
    "question": "Write a short story about a lighthouse keeper in a town.",
    # Float32 and a seed: two runs of a request draw the same tokens, first draws and redraws.
    "sampling": {"model": MODEL, "temperature": 0, "seed": 7, "max_tokens": 64},
    "schema": {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": NAMES}},
        "required": ["name"],
        "additionalProperties": False,
    },
    # Fields of vLLM's. The model has never learnt to think: after 60 characters the pattern lets it end its thoughts,
    # and the bias, which acts only where the pattern allows the token, makes it do so.
    "thinking": {
        "chat_template_kwargs": {"thinking": True},
        "structured_outputs": {"regex": "[^<]{60,80}</think>[^<]{40,80}"},
        "logit_bias": {"5": 100},  # the number of </think>
    },
}
#: What the model calls these tokens, which its training data had no use for, and what a reasoning parser looks for.
RENAMED = {"<repo_name>": "<think>", "<file_sep>": "</think>"}
#: Clients that leave out what the server sends as `reasoning`.
WITHOUT_REASONING = {"langchain-openai.py", "langchain.mjs"}
JSON = {"content-type": "application/json"}
SCRIPTS = [*sorted(HERE.glob("python/*.py")), *sorted(HERE.glob("npm/*.mjs"))]
AT_ONCE = 3
#: Longer than any of them waits of its own accord before it tries again, seconds.
RETRY_AFTER = 3


class Busy(ThreadingHTTPServer):
    """Stub of a gateway in front of the server: the first request of either kind gets 429, others are passed on."""

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _BusyHandler)
        self.behind = url
        #: When it was asked, in seconds: for streams, and for whole answers.
        self.asked: dict[bool, list[float]] = {True: [], False: []}
        #: Of the whole answer that it passed on.
        self.erasures = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _BusyHandler(BaseHTTPRequestHandler):
    server: Busy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        streamed = bool(json.loads(body).get("stream"))
        asked = self.server.asked[streamed]
        asked.append(time.monotonic())
        if len(asked) == 1:
            self.send_response(429)
            self.send_header("retry-after", str(RETRY_AFTER))
            answer = json.dumps({"error": {"message": "busy", "type": "rate_limit", "code": 429}}).encode()
            kind = JSON["content-type"]
        else:
            passed = httpx.post(self.server.behind + self.path, content=body, headers=JSON, timeout=120)
            self.send_response(passed.status_code)
            answer, kind = passed.content, passed.headers["content-type"]
            if not streamed:
                self.server.erasures = passed.json()["healing"]["erasures"]
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = _thinker(tmp_path_factory.mktemp("thinker"))
    flags = ("--healing", "on", "--dtype", "float32", "--additional-config", json.dumps(FORCED))
    # Else the model, which is small, writes arguments that are no object wherever a client does not say "strict".
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--tool-strict-level", "parameter")
    # The parser that has requests choose whether there is reasoning; patterns are to hold in it, too.
    reasoning = ("--reasoning-parser", "deepseek_v3", "--structured-outputs-config.enable_in_reasoning", "true")
    log = tmp_path_factory.mktemp("server") / "log"
    with serve("--model", str(model), "--served-model-name", MODEL, *flags, *tools, *reasoning, log=log) as server:
        yield server.url


def _thinker(folder: Path) -> Path:
    """The embedded model with tokens that a reasoning parser knows."""
    for path in embedded_model().iterdir():
        (folder / path.name).symlink_to(path)
    tokenizer = folder / "tokenizer.json"
    written = json.loads(tokenizer.read_text("utf-8"))
    for token in written["added_tokens"]:
        if new := RENAMED.get(token["content"]):
            written["model"]["vocab"][new] = written["model"]["vocab"].pop(token["content"])
            token |= {"content": new, "special": False}  # such models show them in their text
    tokenizer.unlink()
    tokenizer.write_text(json.dumps(written), "utf-8")
    return folder


@pytest.fixture(scope="module")
def clients(url: str) -> Iterator[dict[Path, Future[dict[str, Any]]]]:
    """All clients at work, some at a time: the engine is hardly slower for it."""
    pool = ThreadPoolExecutor(AT_ONCE)
    yield {script: pool.submit(_ask, script, url) for script in SCRIPTS}
    pool.shutdown(cancel_futures=True)


def _ask(script: Path, url: str) -> dict[str, Any]:
    command = [*_command(script.stem, script.suffix), str(script)]
    busy = Busy(url)
    threading.Thread(target=busy.serve_forever, daemon=True).start()
    asked = json.dumps({**ASKED, "url": f"{url}/v1", "busy_url": f"{busy.url}/v1"})
    done = subprocess.run([*command, asked], capture_output=True, text=True, timeout=300)
    busy.shutdown()
    busy.server_close()
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    return {**got, "client": script.name, "erasures": busy.erasures, "asked": busy.asked}


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.name)
def heard(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one client got, and with it: the erasures of its answer, and when the stub was asked."""
    script: Path = request.param
    _command(script.stem, script.suffix)
    got: dict[str, Any] = request.getfixturevalue("clients")[script].result()
    return got


@pytest.fixture(scope="module")
def thoughts(url: str) -> dict[str, Any]:
    """What the server thinks, asked without any client."""
    answer = _thinking(url)
    assert answer["healing"]["erasures"] > 1
    message: dict[str, Any] = answer["choices"][0]["message"]
    assert message["reasoning"] and message["content"] and "think>" not in message["content"]
    return message


def test_healing_can_end_with_the_reasoning(url: str) -> None:
    healing = {**FORCED["healing"], "scope": "reasoning"}
    answer = _thinking(url, healing=healing)
    message = answer["choices"][0]["message"]
    assert message["content"] and answer["healing"]["erasures"]
    # The last segment ends with the thoughts: nothing of the rest is scored.
    thought = len(message["reasoning"]) + len("</think>")
    assert sum(record["chars"] for record in answer["healing"]["records"]) == thought
    assert answer["healing"]["committed_tokens"] == answer["usage"]["completion_tokens"]
    answer = _thinking(url, healing=healing, chat_template_kwargs={"thinking": False})
    assert answer["healing"]["segments"] == 0


def _thinking(url: str, **more: Any) -> dict[str, Any]:
    """The server's answer to a request that thinks, unless `more` says otherwise."""
    body = {"messages": [{"role": "user", "content": ASKED["question"]}], **ASKED["sampling"], **ASKED["thinking"]}
    answer: dict[str, Any] = httpx.post(f"{url}/v1/chat/completions", json={**body, **more}, timeout=120).json()
    return answer


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


def test_a_stream_brings_the_answer_in_pieces(heard: dict[str, Any]) -> None:
    assert "".join(heard["streamed"]) == heard["answer"] != ""
    assert len([piece for piece in heard["streamed"] if piece]) > 1
    assert heard["erasures"] > 2


def test_usage_counts_what_was_kept(heard: dict[str, Any]) -> None:
    assert heard["usage"] == heard["streamed_usage"] == ASKED["sampling"]["max_tokens"]


def test_a_forced_tool_is_called(heard: dict[str, Any]) -> None:
    name, arguments = heard["tool"]
    assert name == "Place"
    assert list(arguments) == ["name"] and arguments["name"] in NAMES


def test_a_schema_is_kept(heard: dict[str, Any]) -> None:
    assert list(heard["object"]) == ["name"] and heard["object"]["name"] in NAMES


def test_reasoning_comes_apart_from_the_answer(heard: dict[str, Any], thoughts: dict[str, Any]) -> None:
    thought = heard["thought"]
    assert "".join(thought["streamed"]) == thought["answer"] == thoughts["content"]
    reasoning = None if heard["client"] in WITHOUT_REASONING else thoughts["reasoning"]
    assert thought["reasoning"] == reasoning
    assert "".join(thought["streamed_reasoning"]) == (reasoning or "")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_busy_server_is_asked_again(heard: dict[str, Any], stream: bool) -> None:
    assert ("".join(heard["streamed_retried"]) if stream else heard["retried"]) == heard["answer"]
    first, second = heard["asked"][stream]
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
