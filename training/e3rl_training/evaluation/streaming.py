"""An answer that comes as a stream: when its first token and its first final text came, and what erased draws said.

Live events tell both. An answer without them (shadow mode, stock servers) is final as it comes: both times are one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


class Stream:
    """Gathers the chunks of one choice into the answer that its request would have got without streaming."""

    def __init__(self) -> None:
        self.first_token: float | None = None
        """Seconds until the first text there was, provisional or final; None before it."""
        self.first_committed: float | None = None
        """Seconds until the first final text."""
        self._choice: dict[str, Any] = {}
        self._text = ""
        self._logprobs: list[Any] = []
        self._usage: dict[str, Any] = {}
        self._healing: dict[str, Any] | None = None
        self._drafts: defaultdict[tuple[int, int], str] = defaultdict(str)
        """Provisional text by segment and draw."""

    def feed(self, chunk: Mapping[str, Any], seconds: float) -> None:
        """Take a chunk that came so many seconds after the request was sent."""
        self._usage = chunk.get("usage") or self._usage
        event = chunk.get("healing") or {}
        if event.get("type") == "summary":
            self._healing = dict(event)
        elif event.get("type") == "segment.delta":
            self._drafts[event["segment"], event["attempt"]] += event["text"]
            self.first_token = seconds if self.first_token is None else self.first_token
        for choice in chunk.get("choices") or ():
            self._take(choice, seconds)

    def _take(self, choice: Mapping[str, Any], seconds: float) -> None:
        said = choice["delta"].get("content") if "delta" in choice else choice["text"]
        if said:
            self._text += said
            self.first_token = seconds if self.first_token is None else self.first_token
            self.first_committed = seconds if self.first_committed is None else self.first_committed
        logprobs = choice.get("logprobs") or {}
        self._logprobs += logprobs.get("token_logprobs") or logprobs.get("content") or ()
        if choice.get("finish_reason"):
            self._choice = dict(choice)

    @property
    def is_complete(self) -> bool:
        """Whether it has come to its end, usage included."""
        return bool(self._choice and self._usage)

    def answer(self) -> dict[str, Any]:
        """The answer; the first of a segment's erased draws with its `text`."""
        choice = self._choice
        if "delta" in choice:
            whole: dict[str, Any] = {"message": {"content": self._text}, "logprobs": {"content": self._logprobs}}
        else:
            whole = {"text": self._text, "logprobs": {"token_logprobs": self._logprobs}}
        for record in (self._healing or {}).get("records") or ():
            for draw in (record.get("erased") or ())[:1]:
                draw["text"] = self._drafts[record["segment"], draw["attempt"]]
        healing = {} if self._healing is None else {"healing": self._healing}
        return {
            "choices": [{**whole, "finish_reason": choice.get("finish_reason")}],
            "usage": self._usage,
            **healing,
        }
