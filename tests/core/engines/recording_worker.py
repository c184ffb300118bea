"""A stand-in for vLLM's model runner V2, which needs Triton: it checks what a scheduler sends instead of computing it.

Its KV cache holds, per slot, the prefix a real one would have encoded there, so a step that would read a stale or
foreign slot fails. Semantics as read in vllm 0.32 `v1/worker/gpu/model_runner.py`: preempted and finished requests
leave, new ones (resumed ones among them) bring all tokens, blocks and sampling parameters, running ones only new
blocks; sampled tokens stay on the worker.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass
class Slot:
    tokens: list[int]
    blocks: list[int]
    params: Any


@dataclass
class RecordingWorker:
    block_size: int
    requests: dict[str, Slot] = field(default_factory=dict)
    kv: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    arrivals: dict[str, list[Any]] = field(default_factory=dict)
    """Per request, every `NewRequestData` it came with: the first, then one per resumption."""
    scheduled: int = 0
    _noise: int = 0

    def execute(self, step: Any) -> Any:
        """Run one step; asserts that every slot read holds the request's own prefix."""
        computed = {}
        for req_id in step.finished_req_ids | (step.preempted_req_ids or set()):
            self.requests.pop(req_id, None)
        for new in step.scheduled_new_reqs:
            assert new.prefill_token_ids[: len(new.prompt_token_ids)] == new.prompt_token_ids
            self.requests[new.req_id] = Slot(list(new.prefill_token_ids), list(new.block_ids[0]), new.sampling_params)
            self.arrivals.setdefault(new.req_id, []).append(replace(new, prefill_token_ids=list(new.prefill_token_ids)))
            computed[new.req_id] = new.num_computed_tokens
        cached = step.scheduled_cached_reqs
        for req_id, done, blocks in zip(cached.req_ids, cached.num_computed_tokens, cached.new_block_ids, strict=True):
            computed[req_id] = done
            if blocks is not None:
                self.requests[req_id].blocks.extend(blocks[0])
        sampled = [self._run(req_id, computed[req_id], n) for req_id, n in step.num_scheduled_tokens.items()]
        self.scheduled += step.total_num_scheduled_tokens
        return self._output(list(step.num_scheduled_tokens), sampled)

    def _run(self, req_id: str, start: int, count: int) -> list[int]:
        slot = self.requests[req_id]
        assert start + count <= len(slot.tokens), "fed a token that was never sampled"
        for position in range(start, start + count):
            self.kv[self._place(slot, position)] = tuple(slot.tokens[: position + 1])
        for position in range(start + count):
            assert self.kv.get(self._place(slot, position)) == tuple(slot.tokens[: position + 1]), "stale KV read"
        if start + count < len(slot.tokens):
            return []
        slot.tokens.append(self._sample(slot))
        return slot.tokens[-1:]

    def _place(self, slot: Slot, position: int) -> tuple[int, int]:
        return slot.blocks[position // self.block_size], position % self.block_size

    def _sample(self, slot: Slot) -> int:
        if slot.params.temperature > 0:
            self._noise += 1
            return greedy_token([*slot.tokens, self._noise])
        return greedy_token(slot.tokens)

    @staticmethod
    def _output(req_ids: list[str], sampled: list[list[int]]) -> Any:
        from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput

        ids = np.array([[tokens[0] if tokens else 0] for tokens in sampled], dtype=np.int32).reshape(-1, 1)
        return ModelRunnerOutput(
            req_ids=req_ids,
            req_id_to_index={req_id: index for index, req_id in enumerate(req_ids)},
            sampled_token_ids=sampled,
            logprobs=LogprobsLists(ids, -np.abs(np.sin(ids)).astype(np.float32), np.zeros(len(req_ids))),
        )


def greedy_token(tokens: list[int]) -> int:
    """The stand-in's argmax: a pure function of the prefix."""
    return 10 + zlib.crc32(np.array(tokens, dtype=np.int64).tobytes()) % 900


def greedy_text(prompt: list[int], length: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(greedy_token(tokens))
    return tokens[len(prompt) :]


def steps(scheduler: Any, worker: RecordingWorker, depth: int = 2) -> Iterator[list[Any]]:
    """Drive both with up to `depth` steps in flight, as vLLM's engine core does; yields each step's outputs."""
    flying: deque[tuple[Any, Any]] = deque()
    while scheduler.has_requests() or flying:
        if scheduler.has_requests():
            step = scheduler.schedule()
            flying.append((step, worker.execute(step)))
            if len(flying) < depth and step.total_num_scheduled_tokens:
                continue
        outputs = scheduler.update_from_output(*flying.popleft())
        yield [output for core_outputs in outputs.values() for output in core_outputs.outputs]
