"""In a trainer's process, where the whole engine lives: its scheduler, new weights, its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from e3rl_core.errors import EngineRefusal


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
