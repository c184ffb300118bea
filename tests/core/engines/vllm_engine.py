"""Real vLLM engines in this process, small enough for tests: one at a time, with steps really in flight."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

SCHEDULER = "e3rl_core.engines.vllm_scheduler.HealingScheduler"
MAX_TOKENS = 60

#: Every second 8-token segment is erased once, and its greedy redraw repeats: the text of a run without healing.
REPEATING = {"segment": {"tokens": 8}, "schedule": [1, 0], "max_erasures": 1, "retry": {"temperature": 0}}

#: The same, from the first token on whose surprisal is above 5.6 nats, as every sixth or so of the tiny model's is.
FROM_ONSET = {
    "segment": {"tokens": 8},
    "erase_from": "onset",
    "uncertainty": {"smoothing": 0, "mean": 0, "max": 1, "rise": 0},
    "threshold": {"k": 7, "eta": 0, "prior_segments": 1e6},
    "budget": {"erased_fraction": None},
    "max_erasures": 1,
    "retry": {"temperature": 0},
}

#: Every second 8-token segment is sampled twice more, and everything is reported.
REDRAWN = {
    "segment": {"tokens": 8},
    "schedule": [2, 0],
    "max_erasures": 2,
    "retry": {"temperature": 1.5},
    "return_erased": True,
}

PROMPTS = [
    "Count from one to thirty:",
    "The capital of France is",
    "A short story about a fox:",
    "def fib(n):",
    "Water boils at",
    "In 1969,",
    "The sky is blue because",
    "List three fruits:",
    "2+2=4, 3+3=6,",
    "Once upon a time",
    "Newton said",
    "My name is",
]


def tiny_llama(folder: Path, tokenizer_from: Path) -> Path:
    """A random two-layer Llama with a real tokenizer: milliseconds a step, and greedy text without near-ties."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer_from / name).exists():
            shutil.copy(tokenizer_from / name, folder / name)
    return folder


@contextmanager
def async_scheduling(enabled: bool) -> Iterator[None]:
    """vLLM turns async scheduling off on CPUs; turned back on, a step is in flight at every rollback."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config

    def keep(cls: type, config: Any) -> None:
        original(config)
        config.scheduler_config.async_scheduling = enabled

    CpuPlatform.check_and_update_config = classmethod(keep)
    try:
        yield
    finally:
        CpuPlatform.check_and_update_config = original


@contextmanager
def engine(model: Path, *, in_flight: bool = True, **options: Any) -> Iterator[Any]:
    """A `vllm.LLM` with the healing scheduler, float32, in this process; gone afterwards."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    defaults = {
        "dtype": "float32",
        "enforce_eager": True,
        "block_size": 32,
        "max_model_len": 512,
        "kv_cache_memory_bytes": 1 << 30,
        "scheduler_cls": SCHEDULER,
        "additional_config": {"healing": {"mode": "off"}},
    }
    with async_scheduling(in_flight), patch.dict(os.environ, VLLM_ENABLE_V1_MULTIPROCESSING="0"):
        llm = LLM(str(model), **{**defaults, **options})
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()
            del llm
            cleanup_dist_env_and_memory()
            gc.collect()


def scheduler_of(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler


def generate(llm: Any, healing: object, prompts: Sequence[Any] = PROMPTS, **params: Any) -> list[Any]:
    """Finished `RequestOutput`s; greedy and `MAX_TOKENS` long unless said otherwise."""
    from vllm import SamplingParams

    options = {"max_tokens": MAX_TOKENS, "temperature": 0.0, **params}
    sampling = SamplingParams(extra_args={"healing": healing}, **options)
    outputs: list[Any] = llm.generate(list(prompts), sampling, use_tqdm=False)
    return outputs


def ops(outputs: Sequence[Any], kind: str) -> list[dict[str, Any]]:
    """All ops of a kind, over requests and choices."""
    return [op for output in outputs for choice in getattr(output, "healing", []) for op in choice if op["op"] == kind]


def heads(outputs: Sequence[Any]) -> int:
    """How many draws were erased from their onset, and not as a whole: a short commit with an erasure behind it."""
    logs = [[op for op in choice if op["op"] != "drafted"] for output in outputs for choice in output.healing]
    return sum(
        kept["op"] == "committed" and gone["op"] == "erased" and kept["tokens"] < 8
        for log in logs
        for kept, gone in pairwise(log)
    )


def answers(outputs: Sequence[Any]) -> list[list[tuple[Any, ...]]]:
    """What a client sees of each choice."""
    return [
        [(tuple(c.token_ids), c.text, c.finish_reason, c.stop_reason) for c in output.outputs] for output in outputs
    ]


def committed(output: Any, choice: int = 0) -> list[dict[str, Any]]:
    """The commits of one choice, in order."""
    return [op for op in output.healing[choice] if op["op"] == "committed"]


def erased(output: Any, choice: int = 0) -> list[dict[str, Any]]:
    """The erasures of one choice, in order."""
    return [op for op in output.healing[choice] if op["op"] == "erased"]
