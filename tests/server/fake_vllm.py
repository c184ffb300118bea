"""A fake engine and fake serving generators around vLLM's real output processor, queues and stop-string logic.

Real here: `OutputProcessor` with our hooks in it, `RequestOutputCollector` and its merging, `ParentRequest`, the stop
strings of `BaseIncrementalDetokenizer`, `merge_async_iterators`. Fake: the engine, which plays a script; the tokens,
which are a few bytes of UTF-8 each; and the two serving generators, which are vLLM's reduced to what they send.
"""

from __future__ import annotations

import asyncio
import codecs
import copy
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.utils.async_utils import merge_async_iterators
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.detokenizer import BaseIncrementalDetokenizer
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.engine.parallel_sampling import ParentRequest

from e3rl_core.engines.vllm_compat import put_ops
from e3rl_core.events import CommittedOp, DraftedOp, ErasedOp, RetrySpec, Score, dump_ops
from e3rl_core.healer import Reason

#: Token id -> its bytes. Ids are handed out as scripts are written.
VOCABULARY: list[bytes] = []


def token(piece: bytes) -> int:
    """An id for a token of these bytes."""
    VOCABULARY.append(piece)
    return len(VOCABULARY) - 1


class FakeDetokenizer(BaseIncrementalDetokenizer):
    """vLLM's incremental detokenizer over UTF-8 pieces; what is no UTF-8 becomes replacement characters."""

    def __init__(self, request: EngineCoreRequest) -> None:
        super().__init__(request)
        self.stream = codecs.getincrementaldecoder("utf-8")("replace")

    def decode_next(self, next_token_id: int) -> str:
        return self.stream.decode(VOCABULARY[next_token_id])


@dataclass(frozen=True)
class Segment:
    """What the engine does at one checkpoint: draws in order, and which of them is kept.

    `onset`: the first draw is what was erased of a draw whose head became the segment before.
    """

    draws: tuple[tuple[int, ...], ...]
    kept: int
    onset: bool = False


@dataclass
class Script:
    """What the engine plays: segments per choice, and when.

    `steps` are (choice, loop turns to wait afterwards); choices that are due but not named follow in order.
    """

    choices: list[list[Segment]]
    steps: list[tuple[int, int]] = field(default_factory=list)
    mode: str = "on"
    live: bool = True

    def text(self, choice: int) -> str:
        kept = (piece for segment in self.choices[choice] for piece in segment.draws[segment.kept])
        return b"".join(VOCABULARY[piece] for piece in kept).decode("utf-8", "replace")

    @property
    def erased_tokens(self) -> int:
        segments = [segment for choice in self.choices for segment in choice]
        return sum(len(draw) for s in segments for i, draw in enumerate(s.draws) if i != s.kept)

    def outputs(self, choice: int, request_id: str) -> Iterator[EngineCoreOutput]:
        """The engine's outputs for one choice, as the healing scheduler would send them."""
        segments, drawn = self.choices[choice], False
        for index, segment in enumerate(segments):
            following = segments[index + 1] if index + 1 < len(segments) else None
            heads = following is not None and following.onset and segment.kept == len(segment.draws) - 1
            spilt = following.draws[0] if heads and len(following.draws) > 1 else ()
            yield from _Play(self, request_id, index, segment, following is None, spilt, drawn).outputs()
            drawn = bool(spilt)


SCORE = Score(u=1.0, mean=0.8, max=2.0, slope=0.1)


@dataclass
class _Play:
    script: Script
    request_id: str
    index: int
    segment: Segment
    final: bool
    spilt: tuple[int, ...]
    """Drawn behind the kept draw, and erased with its commit: the next segment's first draw."""
    drawn: bool
    """The first draw has been played already, as what the segment before has spilt."""

    def outputs(self) -> Iterator[EngineCoreOutput]:
        waiting: list[Any] = []
        for attempt, draw in enumerate(self.segment.draws):
            if attempt == 0 and self.drawn:
                continue
            last = attempt == len(self.segment.draws) - 1
            drafted = draw + (self.spilt if last else ())
            for position, piece in enumerate(drafted):
                if self.script.live:
                    waiting.append(DraftedOp(segment=self.index, attempt=attempt, token_ids=[piece]))
                tokens = [piece] if self.script.mode == "shadow" else []
                finish = None
                if position == len(drafted) - 1:
                    waiting.append(self._committed(attempt + 1) if last else self._erased(self.index, attempt, draw))
                    if last and self.spilt:
                        if self.script.live:
                            waiting.append(DraftedOp(segment=self.index + 1, attempt=0, token_ids=list(self.spilt)))
                        waiting.append(self._erased(self.index + 1, 0, self.spilt))
                    if last:
                        tokens = tokens or list(self.segment.draws[self.segment.kept])
                        finish = FinishReason.LENGTH if self.final else None
                if tokens or self.script.live:
                    output = EngineCoreOutput(self.request_id, tokens, finish_reason=finish)
                    if waiting:
                        put_ops(output, dump_ops(waiting))
                    waiting = []
                    yield output

    def _erased(self, segment: int, attempt: int, draw: tuple[int, ...]) -> ErasedOp:
        return ErasedOp(
            segment=segment, attempt=attempt, tokens=len(draw), uncertainty=SCORE, threshold=0.5,
            reason=Reason.SCHEDULE, retry=RetrySpec(attempt=attempt + 1, temperature=0.7),
        )  # fmt: skip

    def _committed(self, attempts: int) -> CommittedOp:
        kept = self.segment.kept
        erased = sum(len(draw) for i, draw in enumerate(self.segment.draws) if i != kept)
        return CommittedOp(
            segment=self.index, attempt=kept, tokens=len(self.segment.draws[kept]), uncertainty=SCORE, threshold=2.0,
            attempts=attempts, first_u=1.5, erased_tokens=erased,
        )  # fmt: skip


class FakeEngineClient:
    """Plays a script to whoever calls `generate`, once all of the script's choices have been asked for."""

    def __init__(self, script: Script) -> None:
        self.processor = OutputProcessor(None, log_stats=False)
        self.aborted: list[str] = []
        self.seen_ids: list[str] = []
        self._script = script
        self._plays: list[Iterator[EngineCoreOutput] | None] = []
        self._ids: list[str] = []
        self._driver: asyncio.Task[None] | None = None

    async def generate(
        self, prompt: Any, params: SamplingParams, request_id: str, **_: Any
    ) -> AsyncGenerator[Any, None]:
        queue = self._add(params, request_id)
        try:
            finished = False
            while not finished:
                output = queue.get_nowait() or await queue.get()
                finished = output.finished
                yield output
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            self.processor.abort_requests([request_id], internal=False)
            raise

    def _add(self, params: SamplingParams, request_id: str) -> RequestOutputCollector:
        self.seen_ids.append(request_id)
        queue = RequestOutputCollector(params.output_kind, request_id)
        request = EngineCoreRequest(
            f"{request_id}-internal", [0], None, params, None, time.time(), None, None, None, external_req_id=request_id
        )
        parent = ParentRequest(request) if params.n > 1 else None
        for index in range(params.n):
            child = copy.copy(request)
            if parent is not None:
                child.request_id, child.sampling_params = parent.get_child_info(index)
            self._register(child, parent, index, queue)
        if len(self._plays) == len(self._script.choices):
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        return queue

    def _register(self, request: EngineCoreRequest, parent: Any, index: int, queue: Any) -> None:
        self.processor.add_request(request, None, parent, index, queue)
        self.processor.request_states[request.request_id].detokenizer = FakeDetokenizer(request)
        self._ids.append(request.request_id)
        self._plays.append(self._script.outputs(len(self._plays), request.request_id))

    async def _drive(self) -> None:
        try:
            await self._play()
        except Exception as error:  # else whoever waits for outputs would wait for ever
            self.processor.propagate_error(error)

    async def _play(self) -> None:
        for choice, turns in self._script.steps:
            self._step(choice % len(self._plays))
            for _ in range(turns):
                await asyncio.sleep(0)
        for choice in range(len(self._plays)):
            for _ in iter(lambda choice=choice: self._step(choice), False):  # type: ignore[misc]
                await asyncio.sleep(0)

    def _step(self, choice: int) -> bool:
        play = self._plays[choice]
        output = next(play, None) if play is not None else None
        if output is None or self._ids[choice] not in self.processor.request_states:
            self._plays[choice] = None
            return False
        self.processor.process_outputs([output])
        return True


def sampling(*, n: int, streamed: bool, stop: list[str]) -> SamplingParams:
    """Parameters as vLLM's request models make them."""
    kind = RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY
    params = SamplingParams(n=n, output_kind=kind, max_tokens=10_000, detokenize=False)
    params.stop = stop
    return params


def _chunk(kind: str, choice: dict[str, Any] | None, **more: Any) -> str:
    data = {"id": "rsp", "object": kind, "created": 7, "model": "fake", "choices": [choice] if choice else [], **more}
    return f"data: {json.dumps(data)}\n\n"


async def fake_chat_stream(outputs: Any, n: int, parser_lags: bool) -> AsyncGenerator[str, None]:
    """vLLM's chat stream: a role chunk per choice, then a chunk per output, unless the parser wants more text."""
    kind, first, total = "chat.completion.chunk", True, 0
    held = [""] * n
    async with aclosing(outputs):
        async for output in outputs:
            if first:
                first = False
                for index in range(n):
                    role = {"role": "assistant", "content": ""}
                    yield _chunk(kind, {"index": index, "delta": role, "finish_reason": None})
            for completion in output.outputs:
                total += len(completion.token_ids)
                held[completion.index] += completion.text
                if parser_lags and completion.finish_reason is None and len(held[completion.index]) % 2:
                    continue
                delta = {"content": held[completion.index]}
                held[completion.index] = ""
                choice = {"index": completion.index, "delta": delta, "finish_reason": completion.finish_reason}
                yield _chunk(kind, choice)
    yield _chunk(kind, None, usage={"prompt_tokens": 1, "completion_tokens": total, "total_tokens": total + 1})
    yield "data: [DONE]\n\n"


async def fake_completion_stream(generators: list[Any], n: int) -> AsyncGenerator[str, None]:
    """vLLM's completions stream: a chunk per output and choice, several prompts merged."""
    total = 0
    async with aclosing(merge_async_iterators(*generators)) as merged:
        async for prompt, output in merged:
            for completion in output.outputs:
                total += len(completion.token_ids)
                index = completion.index + prompt * n
                choice = {"index": index, "text": completion.text, "finish_reason": completion.finish_reason}
                yield _chunk("text_completion", choice)
    yield _chunk("text_completion", None, usage={"prompt_tokens": 1, "completion_tokens": total})
    yield "data: [DONE]\n\n"
