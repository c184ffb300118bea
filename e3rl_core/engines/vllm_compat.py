"""Every undocumented vLLM name this project touches, the versions they were read in, and what cannot be healed.

Documented extension points (scheduler class, plugins, `extra_args`) are used where they are needed; what is not
documented is used through this module alone. `TOUCHED` lists it name by name; a contract test checks each against the
installed vLLM and fails with the name that moved.

    process      hook                      what for
    scheduler    RequestSurgery            truncate a request to a checkpoint, keep its blocks, queue it to resume
    scheduler    cap_prefix_cache          uncommitted tokens never enter the prefix cache
    scheduler    gate_grammar              the grammar advances with held tokens and is rolled back with them
    worker       install_worker_hooks      a resumed request gets its redraw's sampling parameters (model runner V1);
                                           the surprisal alone, without full-vocabulary ranks
    API          install_frontend_hooks    bad healing settings are a 400; ops are taken off outputs, in order
    trainer      in_process_scheduler      a new profile every step
    trainer      reload_weights            new weights every step
    trainer      shut_down                 an engine's end leaves the trainer's process group alone
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e3rl_core.errors import EngineRefusal, PolicyError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

#: vLLM releases whose internals were read: minor versions, first and last.
SUPPORTED = ((0, 32), (0, 32))

#: The key under `SamplingParams.extra_args`, `EngineCoreOutput.kv_transfer_params` and `additional_config`.
#: The second is free for this because KV connectors, its owner, are refused.
KEY = "healing"

#: module -> (attribute paths) read or replaced here or in `vllm_scheduler`.
TOUCHED: dict[str, tuple[str, ...]] = {
    "vllm.distributed.parallel_state": ("destroy_model_parallel",),
    "vllm.v1.core.sched.async_scheduler": ("AsyncScheduler",),
    "vllm.v1.core.sched.scheduler": (
        "Scheduler.schedule",
        "Scheduler.update_from_output",
        "Scheduler.add_request",
        "Scheduler._update_request_with_output",
        "Scheduler._free_request",
        "Scheduler._preempt_request",
        "Scheduler._free_request_blocks",
    ),
    "vllm.v1.core.sched.utils": ("check_stop",),
    "vllm.v1.core.sched.output": ("SchedulerOutput", "CachedRequestData"),
    "vllm.v1.core.kv_cache_manager": ("KVCacheManager.cache_blocks",),
    "vllm.v1.core.kv_cache_coordinator": ("KVCacheCoordinator.cache_blocks",),
    "vllm.v1.request": ("Request.update_block_hashes", "RequestStatus.PREEMPTED", "RequestStatus.RUNNING"),
    "vllm.v1.structured_output": ("StructuredOutputManager.accept_tokens",),
    "vllm.v1.engine": ("EngineCoreOutput",),
    "vllm.v1.engine.core": ("EngineCore.shutdown", "cleanup_dist_env_and_memory"),
    "vllm.v1.outputs": ("LogprobsLists.slice_request", "LogprobsTensors", "SamplerOutput"),
    "vllm.v1.engine.input_processor": ("InputProcessor._validate_params",),
    "vllm.v1.engine.output_processor": ("OutputProcessor.process_outputs", "RequestState"),
    "vllm.v1.engine.detokenizer": ("BaseIncrementalDetokenizer.decode_next", "FastIncrementalDetokenizer"),
    "vllm.v1.engine.core_client": ("InprocClient.shutdown",),
    "vllm.v1.worker.gpu_model_runner": ("GPUModelRunner._update_states",),
    "vllm.v1.worker.gpu_worker": ("Worker.reload_weights",),
    "vllm.v1.sample.sampler": ("Sampler.forward",),
}


#: module -> class -> attributes that its constructor sets, read or written likewise.
TOUCHED_ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "vllm.v1.core.sched.scheduler": {
        "Scheduler": (
            "kv_cache_manager",
            "structured_output_manager",
            "requests",
            "running",
            "waiting",
            "kv_holding_waiting",
            "prev_step_scheduled_req_ids",
            "reset_preempted_req_ids",
            "grammar_compile_error_reqs",
            "hash_block_size",
            "current_step",
        )
    },
    "vllm.v1.core.kv_cache_manager": {"KVCacheManager": ("coordinator",)},
    "vllm.v1.request": {
        "Request": (
            "_output_token_ids",
            "_all_token_ids",
            "block_hashes",
            "spec_token_ids",
            "num_computed_tokens",
            "num_in_flight_tokens",
            "num_stale_output_tokens",
            "drop_stale_output",
            "num_output_placeholders",
            "next_decode_eligible_step",
            "stop_reason",
            "structured_output_request",
        )
    },
    "vllm.v1.engine.output_processor": {"RequestState": ("external_req_id", "request_index", "detokenizer", "queue")},
    "vllm.v1.engine.detokenizer": {"BaseIncrementalDetokenizer": ("output_text", "stop_buffer_length")},
    "vllm.entrypoints.llm": {"LLM": ("llm_engine",)},
    "vllm.v1.engine.llm_engine": {"LLMEngine": ("engine_core",)},
    "vllm.v1.engine.core_client": {"InprocClient": ("engine_core",)},
    "vllm.v1.engine.core": {"EngineCore": ("scheduler",)},
    "vllm.v1.worker.gpu_model_runner": {"GPUModelRunner": ("requests", "sampler")},
    "vllm.v1.worker.gpu_input_batch": {"InputBatch": ("num_logprobs", "generators", "req_id_to_index")},
}


def check_version(version: str) -> None:
    """Refuse a vLLM whose internals nobody has read.

    Raises:
        EngineRefusal: naming the installed and the supported versions.
    """
    parts = tuple(int(part) for part in version.split(".")[:2])
    if not SUPPORTED[0] <= parts <= SUPPORTED[1]:
        first, last = (".".join(map(str, bound)) for bound in SUPPORTED)
        span = first if first == last else f"{first} to {last}"
        raise EngineRefusal(f"vllm {version} is installed, healing needs {span}: install that, or use --healing off")


def refuse_unhealable(config: VllmConfig, kv_cache_config: KVCacheConfig) -> None:
    """Refuse, by name, deployments whose state cannot be rolled back in place.

    Raises:
        EngineRefusal: naming every feature that stands in the way.
    """
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    parallel = config.parallel_config
    specs = {type(group.kv_cache_spec) for group in kv_cache_config.kv_cache_groups}
    reasons = [
        (config.kv_transfer_config is not None, "KV connectors (--kv-transfer-config)"),
        (config.ec_transfer_config is not None, "encoder-cache connectors (--ec-transfer-config)"),
        (config.speculative_config is not None, "speculative decoding (--speculative-config)"),
        (parallel.pipeline_parallel_size > 1, "pipeline parallelism (--pipeline-parallel-size)"),
        (parallel.decode_context_parallel_size > 1, "context parallelism (--decode-context-parallel-size)"),
        (parallel.prefill_context_parallel_size > 1, "context parallelism (--prefill-context-parallel-size)"),
        (config.model_config.runner_type != "generate", "models that do not generate text"),
        (config.model_config.is_encoder_decoder, "encoder-decoder models"),
        (config.model_config.is_diffusion, "diffusion language models"),
        (config.model_config.is_multimodal_model, "multi-modal models (not yet tried)"),
        (config.model_config.return_sampling_mask, "sampling masks (--return-sampling-mask)"),
        (
            config.model_config.logprobs_mode != "raw_logprobs",
            f"--logprobs-mode {config.model_config.logprobs_mode} (healing scores raw_logprobs)",
        ),
        (
            not all(issubclass(spec, FullAttentionSpec) for spec in specs),
            f"caches that forget ({', '.join(sorted(spec.__name__ for spec in specs))}: recurrent-state and hybrid "
            "models cannot be rolled back; for sliding windows try --disable-hybrid-kv-cache-manager)",
        ),
    ]
    found = [name for applies, name in reasons if applies]
    if found:
        raise EngineRefusal(f"healing cannot work with {'; '.join(found)}: remove it, or use --healing off")


# --- scheduler process ----------------------------------------------------------------------------------------------


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


def settings_of(config: VllmConfig) -> dict[str, Any]:
    """The deployment's healing settings, as passed in `additional_config`."""
    additional = config.additional_config
    settings: dict[str, Any] = additional.get(KEY, {}) if isinstance(additional, dict) else {}
    return settings


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


# --- worker process -------------------------------------------------------------------------------------------------

_REDRAWS = "e3rl_redraws"
_SIGNAL_ONLY = "e3rl_signal_only"

#: Whether `install_worker_hooks` ran in this process; the scheduler refuses to start without it.
worker_hooks_installed = False


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
    global worker_hooks_installed
    if worker_hooks_installed:
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
    worker_hooks_installed = True


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


# --- API process ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TappedRequest:
    """One choice of one request, as vLLM's output processor knows it, at the moment its ops arrive."""

    state: Any
    finished: bool
    """Whether this output ended the choice (by the engine, or by a stop string found in its text)."""

    @property
    def request_id(self) -> str:
        """The id the caller of `generate` chose; shared by all choices of a request with n > 1."""
        return str(self.state.external_req_id)

    @property
    def choice(self) -> int:
        return int(self.state.request_index)

    @property
    def text(self) -> str:
        """All committed text so far, the part withheld for stop strings included."""
        return str(getattr(self.state.detokenizer, "output_text", ""))

    @property
    def released_chars(self) -> int:
        """How many characters of `text` may be shown: all but what could still become a stop string."""
        withheld = 0 if self.finished else getattr(self.state.detokenizer, "stop_buffer_length", 0)
        return max(0, len(self.text) - withheld)

    @property
    def token_ids(self) -> Sequence[int]:
        """All committed tokens so far, without the prompt."""
        ids: Sequence[int] = self.state.detokenizer.output_token_ids
        return ids

    @property
    def arrival_time(self) -> float | None:
        """When the request arrived, seconds since the epoch; None where vLLM's statistics are off."""
        stats = self.state.stats
        return None if stats is None else float(stats.arrival_time)

    def draft_decoder(self) -> Callable[[int], str]:
        """A decoder of further token ids that starts where the committed text ends, and leaves it untouched."""
        detokenizer = copy.copy(self.state.detokenizer)
        if not hasattr(detokenizer, "decode_next"):
            return lambda token_id: ""
        for name in ("stream", "tokens"):
            if hasattr(detokenizer, name):
                setattr(detokenizer, name, copy.deepcopy(getattr(detokenizer, name)))
        decode: Callable[[int], str] = detokenizer.decode_next
        return decode


OutputTap = Callable[[TappedRequest, list[dict[str, Any]]], None]
PolicyCheck = Callable[["VllmConfig", "SamplingParams"], None]

_taps: list[OutputTap] = []
_frontend_installed = False


def add_output_tap(tap: OutputTap) -> None:
    """Have `tap(request, ops)` called for every engine output that carries ops.

    It runs right after vLLM has processed that output, before the event loop turns, and in the engine's order:
    text of `request` includes the tokens the output brought. Nothing is merged and nothing is lost.
    """
    install_frontend_hooks()
    _taps.append(tap)


def remove_output_tap(tap: OutputTap) -> None:
    """Undo `add_output_tap`."""
    _taps.remove(tap)


def install_frontend_hooks(check: PolicyCheck | None = None) -> None:
    """Take ops off engine outputs, and turn bad healing settings into vLLM's own validation error. Idempotent."""
    global _frontend_installed
    if _frontend_installed:
        return
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor

    process_outputs = OutputProcessor.process_outputs
    validate_params = InputProcessor._validate_params

    @functools.wraps(process_outputs)
    def process_outputs_and_tap(self: Any, outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        tapped = []
        rest = []
        for output in outputs:
            ops = take_ops(output)
            if ops:
                state = self.request_states.get(output.request_id)
                if state is not None:
                    tapped.append((state, ops))
                if not output.new_token_ids and output.finish_reason is None:
                    continue
            rest.append(output)
        result = process_outputs(self, rest, *args, **kwargs)
        for state, ops in tapped:
            request = TappedRequest(state, finished=state.request_id not in self.request_states)
            for tap in _taps:
                tap(request, ops)
            if state.queue is None:
                _keep_for_offline(state, ops, result.request_outputs)
        return result

    @functools.wraps(validate_params)
    def validate_params_and_healing(self: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm.exceptions import VLLMValidationError

        result = validate_params(self, params, *args, **kwargs)
        if check is not None and (getattr(params, "extra_args", None) or {}).get(KEY) is not None:
            try:
                check(self.vllm_config, params)
            except PolicyError as error:
                raise VLLMValidationError(str(error), parameter=error.field) from None
        return result

    OutputProcessor.process_outputs = process_outputs_and_tap
    InputProcessor._validate_params = validate_params_and_healing
    _frontend_installed = True


def _keep_for_offline(state: Any, ops: list[dict[str, Any]], finished: list[Any]) -> None:
    """Without an event loop (`LLM.generate`) ops end up on the `RequestOutput`: `.healing`, ops per choice."""
    owner = state.parent_req or state
    if not hasattr(owner, "e3rl_ops"):
        owner.e3rl_ops = {}
    owner.e3rl_ops.setdefault(state.request_index, []).extend(ops)
    for output in finished:
        if output.request_id == state.external_req_id:
            output.healing = [owner.e3rl_ops[choice] for choice in sorted(owner.e3rl_ops)]


def put_ops(output: Any, ops: Sequence[dict[str, Any]]) -> None:
    """Attach ops to an engine output."""
    output.kv_transfer_params = {KEY: list(ops)}


def take_ops(output: Any) -> list[dict[str, Any]]:
    """Detach the ops of an engine output; empty if it carries none."""
    params = output.kv_transfer_params
    if not params or KEY not in params:
        return []
    ops: list[dict[str, Any]] = params.pop(KEY)
    output.kv_transfer_params = params or None
    return ops


# --- training process: the whole engine is in it --------------------------------------------------------------------


def in_process_scheduler(llm: Any) -> Any:
    """The scheduler of a `vllm.LLM` whose engine runs in this process.

    Raises:
        EngineRefusal: the engine has a process of its own.
    """
    core = getattr(llm.llm_engine.engine_core, "engine_core", None)
    if core is None:
        raise EngineRefusal("vLLM started its engine in another process: set VLLM_ENABLE_V1_MULTIPROCESSING=0")
    return core.scheduler


def reload_weights(llm: Any, weights: Iterable[tuple[str, Any]]) -> None:
    """Replace the weights in place; `weights` are all of them, under their checkpoint's names, tied ones twice.

    The model's own `load_weights` would not do: on CPUs layers keep packed copies of their weights and nothing else,
    and these have to be made anew. KV in the prefix cache is the caller's to forget.
    """
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})


def shut_down(llm: Any, *, with_process_group: bool) -> None:
    """Stop an engine that runs in this process, and vLLM's part of torch.distributed; `with_process_group`: all of it.

    An engine core destroys the default process group as it goes, and that may be the trainer's. `llm` is of no use
    afterwards.
    """
    from vllm.distributed.parallel_state import destroy_model_parallel
    from vllm.v1.engine import core

    clean_up = core.cleanup_dist_env_and_memory
    if not with_process_group:
        core.cleanup_dist_env_and_memory = destroy_model_parallel
    try:
        llm.llm_engine.engine_core.shutdown()
    finally:
        core.cleanup_dist_env_and_memory = clean_up
