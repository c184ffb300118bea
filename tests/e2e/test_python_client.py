"""The Python client, the examples of ours and `e3rl chat` against a real server."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from e3rl_client import E3RL, AsyncE3RL, HealingSettings, Transcript, healing_of
from tests.clients.python.terminal import Terminal, piped
from tests.e2e.serving import MODEL, Server

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
CLIENTS, DOCUMENT = ROOT / "clients", ROOT / "docs" / "clients.md"
EXAMPLES = CLIENTS / "examples"
#: Every other segment is erased once: what erases is given, what is drawn is the model's.
FORCED: HealingSettings = {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1}
FORCED_FLAG = '{"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1}'
ASK = "Write a short story about a lighthouse keeper and a storm."
#: Float32 and a seed: two runs of a request draw the same tokens, first draws and redraws.
SHARED: dict[str, Any] = {"model": MODEL, "temperature": 0}
CHAT: dict[str, Any] = {**SHARED, "seed": 7, "messages": [{"role": "user", "content": ASK}], "max_tokens": 24}
TEXT: dict[str, Any] = {**SHARED, "seed": 7, "prompt": "The lighthouse keeper", "max_tokens": 24}
RESPONSE: dict[str, Any] = {**SHARED, "extra_body": {"seed": 7}, "input": ASK, "max_output_tokens": 24}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oplog")


@pytest.fixture(scope="module")
def url(server: Callable[..., Server], logs: Path) -> str:
    return server("--healing", "on", "--dtype", "float32", "--healing-log", str(logs), "--healing-log-text").url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[E3RL]:
    with E3RL(base_url=f"{url}/v1", api_key="none") as client:
        yield client


def endpoint(client: Any, name: str) -> Any:
    return {"chat": client.chat.completions, "text": client.completions, "responses": client.responses}[name]


def texts(answer: Any) -> dict[int, str]:
    if hasattr(answer, "output_text"):
        return {0: answer.output_text}
    return {
        choice.index: choice.message.content if hasattr(choice, "message") else choice.text for choice in answer.choices
    }


CASES = {
    "chat": CHAT,
    "chat two": {**CHAT, "n": 2, "temperature": 0.8},
    "text": TEXT,
    "text two": {**TEXT, "n": 2, "temperature": 0.8},
    "responses": RESPONSE,
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_followed_equals_what_is_answered(client: E3RL, case: str) -> None:
    asked = endpoint(client, case.split()[0])
    whole = asked.create(**CASES[case], healing=FORCED)
    summary = healing_of(whole)
    with asked.stream_events(**CASES[case], healing=FORCED) as stream:
        kinds = {event.type for event in stream}
    assert {index: choice.committed for index, choice in stream.transcript.choices.items()} == texts(whole)
    assert {index: choice.content for index, choice in stream.transcript.choices.items()} == texts(whole)
    assert kinds >= {"segment.started", "segment.delta", "segment.erased", "segment.committed", "text.delta", "summary"}
    assert stream.live == ""
    assert summary.records is not None
    assert summary.erasures == stream.summary.erasures > 0
    told = [(0, len(s.erased), s.tokens) for s in stream.segments]
    assert told == [(r.choice, len(r.erased), r.tokens) for r in summary.records if r.choice == 0]


@pytest.mark.parametrize("case", ["chat", "text", "responses"])
async def test_coroutines_get_the_same(url: str, client: E3RL, case: str) -> None:
    expected = texts(endpoint(client, case).create(**CASES[case], healing=FORCED))
    async with AsyncE3RL(base_url=f"{url}/v1", api_key="none") as many:

        async def follow() -> dict[int, str]:
            async with await endpoint(many, case).stream_events(**CASES[case], healing=FORCED) as stream:
                async for _ in stream:
                    pass
            return {0: stream.committed}

        async def ask() -> dict[int, str]:
            return texts(await endpoint(many, case).create(**CASES[case], healing=FORCED))

        assert await asyncio.gather(ask(), follow()) == [expected, expected]


def test_shadow_tells_and_changes_nothing(client: E3RL) -> None:
    off = client.chat.completions.create(**CHAT, healing="off")
    settings: HealingSettings = {**FORCED, "mode": "shadow"}
    with client.chat.completions.stream_events(**CHAT, healing=settings) as stream:
        kinds = [event.type for event in stream]
    assert stream.committed == off.choices[0].message.content
    assert "segment.erased" not in kinds
    assert stream.summary is not None
    assert (stream.summary.erasures, bool(stream.summary.would_erase)) == (0, True)


def test_off_is_a_plain_stream(client: E3RL) -> None:
    stream = client.chat.completions.stream_events(**CHAT, healing="off")
    assert {event.type for event in stream} == {"text.delta"}
    assert stream.choice(0).content == client.chat.completions.create(**CHAT, healing="off").choices[0].message.content


def test_a_wrong_setting_is_refused_by_name(client: E3RL) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**CHAT, healing={"keep": "first"})  # type: ignore[typeddict-item]
    assert caught.value.param == "healing.keep"


def test_an_op_log_replays_to_the_answer(client: E3RL, logs: Path) -> None:
    whole = client.chat.completions.create(**CHAT, healing={**FORCED, "return_erased": True})
    deadline = time.monotonic() + 5
    while not (found := list(logs.glob(f"{whole.id}-*.jsonl"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    transcript = Transcript.replay(found[0])
    assert transcript.committed == whole.choices[0].message.content
    assert transcript.segments[0].erased[0].text != ""


# --- examples -------------------------------------------------------------------------------------------------------


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None or not (CLIENTS / "typescript/dist").exists():
        pytest.skip("the TypeScript client is not built: `make test-clients` builds it, and needs Node")
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.*") if path.suffix != ".sh"))
def test_an_example_runs(request: pytest.FixtureRequest, url: str, name: str) -> None:
    command = request.getfixturevalue("node") if name.endswith(".mjs") else sys.executable
    done = subprocess.run([command, str(EXAMPLES / name), url], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ erasures|erasures=\d+", done.stdout)


def test_the_documented_typescript_runs(node: str, url: str) -> None:
    (code,) = re.findall(r"```ts\n(.*?)```", (CLIENTS / "typescript/README.md").read_text("utf-8"), re.DOTALL)
    code = code.replace("http://127.0.0.1:8000", url)
    command = [node, "--input-type=module", "-"]
    done = subprocess.run(command, input=code, cwd=CLIENTS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"erased \d+ tokens, U", done.stdout)
    assert len(done.stdout.splitlines()[-1].split()) > 3


def test_the_documented_code_runs(url: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    code = "\n".join(blocks).replace("http://127.0.0.1:8000", url).replace("max_tokens=140", "max_tokens=40")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ erasures", done.stdout) and "erasures=" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_example_runs(url: str) -> None:
    done = subprocess.run([str(EXAMPLES / "curl.sh"), url], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"mode":"on"' in done.stdout.replace('": ', '":')
    assert '"type":"segment.committed"' in done.stdout
    assert done.stdout.rstrip().endswith("data: [DONE]")


# --- e3rl chat ------------------------------------------------------------------------------------------------------


def test_a_piped_chat_gets_the_answer_alone(url: str, client: E3RL) -> None:
    flags = ("--temperature", "0", "--seed", "7", "--max-tokens", "24", "--healing", FORCED_FLAG)
    done = piped("--url", url, *flags, prompt=ASK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == texts(client.chat.completions.create(**CHAT, healing=FORCED))[0] + "\n"


def test_a_chat_on_a_terminal_strikes_through_and_goes_on(url: str) -> None:
    with Terminal("--url", url, "--max-tokens", "32", "--healing", FORCED_FLAG) as terminal:
        terminal.wait_for(f"{MODEL} at .*> ")
        terminal.type(f"{ASK}\r")
        terminal.wait_for(r"\x1b\[2m")
        terminal.wait_for(r"\x1b\[9;31m")
        terminal.wait_for(r"[1-9] erasures?, \d+ tokens \| kept \d+ tokens\x1b\[0m\r\n> ")
        terminal.type("And then?\r")
        terminal.wait_for(r"kept \d+ tokens\x1b\[0m\r\n> ")
        terminal.type("\x04")
        assert terminal.exit_status() == 0


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(url: str) -> None:
    with Terminal("--url", url, "--max-tokens", "1500", "--healing", FORCED_FLAG) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"{ASK}\r")
        terminal.wait_for(r"kept [1-9]\d* tokens")
        terminal.type("\x03")
        terminal.wait_for(r"stopped\r\n> ")
        terminal.type("\x04")
        assert terminal.exit_status() == 0


def test_a_chat_with_an_unknown_model_ends_in_one_line(url: str) -> None:
    done = piped("--url", url, "--model", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"e3rl chat: error: --model nobody: the server serves {MODEL}\n"
