"""Record what a running server sends, for tests that replay it. Start the server as below, then run this from the root.

e3rl serve --healing on --dtype float32 --healing-log /tmp/log --healing-log-text
python -m tests.clients.python.record http://127.0.0.1:8000 /tmp/log
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent / "recorded"
ASK = "Write a short story about a lighthouse keeper and a storm."
HEALING = {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1}
SHARED: dict[str, Any] = {"model": "smollm2-135m-instruct", "temperature": 0.8, "seed": 7}
CHAT = {**SHARED, "messages": [{"role": "user", "content": ASK}], "max_tokens": 30, "n": 2}
TEXT = {**SHARED, "prompt": "The lighthouse keeper", "max_tokens": 30}
RESPONSE = {**SHARED, "input": ASK, "max_output_tokens": 30}
BODIES = {"chat/completions": CHAT, "completions": TEXT, "responses": RESPONSE}


def main(url: str, logs: Path) -> None:
    HERE.mkdir(exist_ok=True)
    for path, body in BODIES.items():
        live = {**body, "stream": True, "healing": {**HEALING, "stream": "live"}}
        name = path.replace("/", "-")
        (HERE / f"{name}.sse").write_bytes(httpx.post(f"{url}/v1/{path}", json=live, timeout=120).read())
        whole = {**body, "healing": {**HEALING, "return_erased": True}}
        (HERE / f"{name}.json").write_bytes(httpx.post(f"{url}/v1/{path}", json=whole, timeout=120).read())
    time.sleep(1)  # a log's last line comes after its answer
    logged = [path for path in logs.glob("*.jsonl") if path.name.startswith("cmpl")]
    shutil.copy(max(logged, key=lambda path: path.stat().st_mtime), HERE / "completions.jsonl")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
