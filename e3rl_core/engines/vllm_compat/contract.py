"""The undocumented vLLM names that this package touches, the versions they were read in, and what cannot be healed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e3rl_core.errors import EngineRefusal

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig

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


def settings_of(config: VllmConfig) -> dict[str, Any]:
    """The deployment's healing settings, as passed in `additional_config`."""
    additional = config.additional_config
    settings: dict[str, Any] = additional.get(KEY, {}) if isinstance(additional, dict) else {}
    return settings
