"""In the scheduler's process: requests are cut and resumed, the prefix cache and grammars see what is committed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import Request


def cap_prefix_cache(scheduler: Scheduler, frontier: Callable[[Request], int | None]) -> None:
    """Let no token at or beyond `frontier(request)` into the prefix cache; None means no cap.

    Every insertion goes through the coordinator's `cache_blocks`; a block cached under erased tokens and then
    overwritten would hand wrong KV to whoever hits it.
    """
    coordinator = scheduler.kv_cache_manager.coordinator
    cache_blocks = coordinator.cache_blocks

    @functools.wraps(cache_blocks)
    def capped(request: Request, num_computed_tokens: int) -> None:
        limit = frontier(request)
        cache_blocks(request, num_computed_tokens if limit is None else min(num_computed_tokens, limit))

    coordinator.cache_blocks = capped


def gate_grammar(
    scheduler: Scheduler, verdict: Callable[[Request], bool | None]
) -> Callable[[Request, list[int]], bool]:
    """Take over when grammars advance; returns the manager's own `accept_tokens`.

    Where `verdict(request)` is not None, the scheduler's own call answers it and touches no grammar: held tokens
    were accepted as they came.
    """
    manager = scheduler.structured_output_manager
    accept_tokens: Callable[[Request, list[int]], bool] = manager.accept_tokens

    @functools.wraps(accept_tokens)
    def gated(request: Request, new_token_ids: list[int]) -> bool:
        answer = verdict(request)
        return accept_tokens(request, new_token_ids) if answer is None else answer

    manager.accept_tokens = gated
    return accept_tokens


@dataclass(slots=True)
class GrammarMark:
    """Where a request's grammar stood at the checkpoint."""

    processed: int
    reasoning_ended: bool | None

    @classmethod
    def of(cls, request: Request) -> GrammarMark | None:
        """None for a request without structured output."""
        structured = request.structured_output_request
        if structured is None:
            return None
        return cls(getattr(structured.grammar, "num_processed_tokens", 0), structured.reasoning_ended)

    def restore(self, request: Request) -> None:
        """Roll the grammar back to this mark."""
        structured = request.structured_output_request
        assert structured is not None
        ahead = getattr(structured.grammar, "num_processed_tokens", 0) - self.processed
        if ahead > 0:
            structured.grammar.rollback(ahead)
        structured.reasoning_ended = self.reasoning_ended


def grammar_rolls_back(params: SamplingParams) -> bool:
    """Whether the grammar behind these parameters, if any, can undo a whole segment.

    xgrammar can. outlines and lm-format-enforcer are given a bound made for speculation, guidance keeps no count.
    """
    structured = params.structured_outputs
    return structured is None or structured.all_constraints_none() or structured._backend == "xgrammar"


class RequestSurgery:
    """Truncates requests inside a scheduler, and puts them back to resume on their kept blocks."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def truncate(self, request: Request, num_tokens: int) -> None:
        """Cut the request's tokens (prompt included) to `num_tokens`, with the block hashes of what is cut."""
        surplus = request.num_tokens - num_tokens
        if surplus > 0:
            del request._output_token_ids[-surplus:]
            del request._all_token_ids[num_tokens:]
        del request.block_hashes[num_tokens // self._scheduler.hash_block_size :]
        request.spec_token_ids = []

    def revive(self, request: Request, status: Any) -> None:
        """Undo a stop that `check_stop` has set; `status` is the one from before."""
        request.status = status
        request.stop_reason = None

    def sit_out(self, request: Request) -> None:
        """Leave the request out of the step about to be scheduled."""
        request.next_decode_eligible_step = self._scheduler.current_step + 2  # the step to come counts itself first

    def requeue(self, request: Request, computed: int) -> int:
        """Resume the request in place, with the KV of its first `computed` tokens kept.

        Steps in flight were sampled from what has just changed: their output is dropped when it arrives, and what
        they write to the KV cache lies beyond `computed`, to be overwritten in order by the resumed steps.

        Returns:
            Tokens in flight, thereby scheduled in vain.
        """
        from vllm.v1.request import RequestStatus

        scheduler = self._scheduler
        wasted: int = request.num_in_flight_tokens
        request.drop_stale_output = True
        request.num_stale_output_tokens = wasted
        request.num_output_placeholders = 0
        if request.status != RequestStatus.RUNNING:  # preempted under KV pressure: it waits, without blocks, already
            return wasted
        scheduler.running.remove(request)
        scheduler.prev_step_scheduled_req_ids.discard(request.request_id)
        request.status = RequestStatus.PREEMPTED
        request.num_computed_tokens = computed
        request.next_decode_eligible_step = 0
        if computed == 0:  # a one-token prompt: no KV to keep, so it queues like any other
            scheduler._free_request_blocks(request)
            scheduler.waiting.prepend_request(request)
        else:
            scheduler.kv_holding_waiting.add_request(request)
        scheduler.reset_preempted_req_ids.add(request.request_id)
        return wasted
