"""In the worker's process: redraws get their sampling parameters, sampled tokens their surprisal."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams

_REDRAWS = "e3rl_redraws"
_SIGNAL_ONLY = "e3rl_signal_only"

_installed = False


def worker_hooks_installed() -> bool:
    """Whether `install_worker_hooks` ran in this process; the scheduler refuses to start without it."""
    return _installed


def attach_redraws(scheduler_output: Any, redraws: dict[str, SamplingParams]) -> None:
    """Send new sampling parameters along with a step; model runner V1 does not refresh them on its own."""
    setattr(scheduler_output, _REDRAWS, redraws)


def signal_params(params: SamplingParams) -> SamplingParams:
    """A private copy of `params` that makes the worker report each sampled token's raw logprob."""
    private = copy.copy(params)
    if private.num_logprobs is None:
        private.logprobs = 0
        private.extra_args = {**(private.extra_args or {}), _SIGNAL_ONLY: True}
    return private


def install_worker_hooks() -> None:
    """Wrap model runner V1's state update and sampler. Both are inert for requests that do not heal. Idempotent."""
    global _installed
    if _installed:
        return
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    update_states = GPUModelRunner._update_states
    forward = Sampler.forward

    @functools.wraps(update_states)
    def update_states_with_redraws(self: Any, scheduler_output: Any) -> Any:
        redraws = getattr(scheduler_output, _REDRAWS, None)
        if redraws:
            _refresh_redrawn(self, scheduler_output.scheduled_cached_reqs, redraws)
        result = update_states(self, scheduler_output)
        batch = self.input_batch
        if self.device.type == "cpu":
            _shelve_generators(self, scheduler_output.num_scheduled_tokens)
        self.sampler.e3rl_signal_only = bool(batch.num_logprobs) and all(
            (self.requests[req_id].sampling_params.extra_args or {}).get(_SIGNAL_ONLY) for req_id in batch.num_logprobs
        )
        return result

    @functools.wraps(forward)
    def forward_with_signal(self: Any, logits: Any, sampling_metadata: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(self, "e3rl_signal_only", False) or sampling_metadata.max_num_logprobs != 0:
            return forward(self, logits, sampling_metadata, *args, **kwargs)
        return _sample_with_signal(forward, self, logits, sampling_metadata, *args, **kwargs)

    GPUModelRunner._update_states = update_states_with_redraws
    Sampler.forward = forward_with_signal
    _installed = True


def _refresh_redrawn(runner: Any, cached: Any, redraws: dict[str, SamplingParams]) -> None:
    import torch

    for index, req_id in enumerate(cached.req_ids):
        params = redraws.get(req_id)
        state = runner.requests.get(req_id)
        if params is None or state is None:
            continue
        state.sampling_params = params
        if params.seed is not None:
            state.generator = torch.Generator(device=runner.device)
            state.generator.manual_seed(params.seed)
        count = cached.num_output_tokens[index]
        tokens = cached.all_token_ids.get(req_id)
        if tokens is not None:  # without async scheduling the runner would only cut, not replace
            state.output_token_ids = tokens[len(tokens) - count :]


def _shelve_generators(runner: Any, scheduled: dict[str, int]) -> None:
    """Keep seeded generators out of steps whose sample is thrown away (a prefill's chunks but the last).

    vLLM rewinds the generator after such a step, which CPU generators cannot do: the engine dies of it.
    """
    generators = runner.input_batch.generators
    for req_id, index in runner.input_batch.req_id_to_index.items():
        state = runner.requests[req_id]
        if state.generator is None:
            continue
        if state.num_computed_tokens + scheduled.get(req_id, 0) < state.num_tokens:
            generators.pop(index, None)
        else:
            generators[index] = state.generator


def _sample_with_signal(
    forward: Callable[..., Any], sampler: Any, logits: Any, metadata: Any, *args: Any, **kwargs: Any
) -> Any:
    """Sample as vLLM does, and report log p of the sampled token only: no ranks, no top-k.

    Ranks are reported as 0; nobody who asked for logprobs is in the batch.
    """
    import torch
    from vllm.v1.outputs import LogprobsTensors

    logits = logits.to(torch.float32)  # vLLM's own first step, done here so that it is done once
    logprobs = torch.log_softmax(logits, dim=-1)  # one kernel, unlike logsumexp; vLLM works on the logits in place
    metadata.max_num_logprobs = None
    try:
        output = forward(sampler, logits, metadata, *args, **kwargs)
    finally:
        metadata.max_num_logprobs = 0
    sampled = output.sampled_token_ids
    output.logprobs_tensors = LogprobsTensors(
        sampled, logprobs.gather(-1, sampled.long()), torch.zeros_like(sampled[:, 0])
    )
    return output
