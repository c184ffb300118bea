"""The op log on disk (`--healing-log DIR`): one JSON-lines file per response.

    {"type": "header", "id", "model", "mode", "policy", "time"}      time: seconds since the epoch
    {"type": "prompt", "token_ids"}                                  with text only
    {"choice", "op", ...}                                            one line per op; "text" with text only: of what
                                                                     is kept, and of erased draws that come with tokens
    {"type": "summary", ...}                                         as in the answer

A file is `NAME.jsonl.partial` until its response is over, then `NAME.jsonl`. Without the text flag no line holds text
or a token id. Files are written by one thread of their own, so that a slow disk does not slow answers; an error of the
disk costs the log, with one warning, never an answer.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from e3rl_core.events import CommittedOp, DraftedOp, ErasedOp, Op

logger = logging.getLogger("vllm.e3rl_server")

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_SAYS_TEXT = {"token_ids", "logprobs"}


class LogSettings(BaseModel):
    """`additional_config["healing_log"]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dir: str
    text: bool = False


class OpLog:
    """Opens a log per response in a folder, which it creates.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, settings: LogSettings) -> None:
        self.folder = Path(settings.dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.text = settings.text
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="e3rl-oplog")
        self._warned = False

    def open(self, model: str, policy: dict[str, Any]) -> ResponseLog:
        """A log for one response; its header is written when its id is known."""
        return ResponseLog(self, {"model": model, "mode": policy.get("mode"), "policy": policy, "time": time.time()})

    def append(self, path: Path, lines: list[str]) -> None:
        """Append lines to a file, later, in order."""
        self._writer.submit(self._guarded, _append, path, lines)

    def complete(self, path: Path, name: Path) -> None:
        """Give a file its final name after everything appended so far."""
        self._writer.submit(self._guarded, os.replace, path, name)

    def flush(self) -> None:
        """Wait until everything submitted so far is written."""
        self._writer.submit(lambda: None).result()

    def _guarded(self, action: Any, *args: Any) -> None:
        try:
            action(*args)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning("The healing log cannot be written (%s); answers go on without it", error.strerror)


class ResponseLog:
    """The log of one response."""

    def __init__(self, log: OpLog, header: dict[str, Any]) -> None:
        self._log = log
        self._header = header
        self._path: Path | None = None
        self._prompted = False

    def begin(self, response_id: str) -> None:
        """Name the file after the response; ids can come from clients, so only harmless characters are kept."""
        if self._path is None:
            name = f"{_UNSAFE.sub('_', response_id)[:80].lstrip('.')}-{secrets.token_hex(4)}.jsonl"
            self._path = self._log.folder / name
            self._put({"type": "header", "id": response_id, **self._header})

    def prompt(self, token_ids: Sequence[int] | None) -> None:
        """Log the prompt, once, if text is logged at all."""
        if self._log.text and not self._prompted and token_ids is not None:
            self._prompted = True
            self._put({"type": "prompt", "token_ids": list(token_ids)})

    def write(self, choice: int, ops: Iterable[Op], text: str, decoder: Callable[[], Callable[[int], str]]) -> None:
        """Log the ops of one engine output, and the text that its last commit released.

        Args:
            choice: index of the choice in the response.
            ops: what the engine reported.
            text: what became final.
            decoder: makes a decoder of token ids that continue the final text.
        """
        lines: list[dict[str, Any]] = []
        commit: dict[str, Any] | None = None
        for op in ops:
            if isinstance(op, DraftedOp):
                continue
            hidden = None if self._log.text else _SAYS_TEXT
            lines.append({"choice": choice, **op.model_dump(mode="json", exclude_none=True, exclude=hidden)})
            if self._log.text and isinstance(op, ErasedOp) and op.token_ids is not None:
                lines[-1]["text"] = "".join(map(decoder(), op.token_ids))
            if isinstance(op, CommittedOp):
                commit = lines[-1]
        if commit is not None and self._log.text and text:
            commit["text"] = text
        self._put(*lines)

    def close(self, summary: dict[str, Any]) -> None:
        """The response is over."""
        if self._path is not None:
            self._put(summary)
            self._log.complete(self._partial(self._path), self._path)

    def _put(self, *lines: dict[str, Any]) -> None:
        if self._path is not None and lines:
            text = [json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines]
            self._log.append(self._partial(self._path), text)

    @staticmethod
    def _partial(path: Path) -> Path:
        return path.with_name(path.name + ".partial")


def _append(path: Path, lines: list[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)
