"""Answers in shadow mode: everything is scored and nothing erased, so what is seen is the model as it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vllm

from e3rl_core.engines import vllm_compat as compat
from e3rl_core.errors import CalibrationError, E3RLError
from e3rl_core.events import CommittedOp, load_ops
from e3rl_core.policy import HealingPolicy
from e3rl_core.uncertainty import Uncertainty
from e3rl_training import vllm_engine

#: Of sampling parameters, beside the temperature: what shapes the text that U is measured on.
_SHAPES = ("top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    scores: tuple[Uncertainty, ...]
    """Of segment 0, 1, .."""
    truncated: bool
    """Whether it ended because it was long enough."""


@dataclass(frozen=True, slots=True)
class Sample:
    answers: Sequence[Answer]
    """One a prompt, in order."""
    provenance: dict[str, Any]
    """How they were drawn."""


def sample(
    model: str,
    prompts: Sequence[Sequence[int]],
    policy: HealingPolicy,
    *,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> Sample:
    """One answer a prompt, (_B,); prompt i has random stream seed + i. Other sampling parameters are the model's own.

    Raises:
        CalibrationError: the engine does not start: the model, or the room that prompts and answers take.
        EngineRefusal: the model cannot be healed.
    """
    room = max(map(len, prompts)) + max_tokens
    settings: dict[str, Any] = {"max_model_len": room}
    if vllm.platforms.current_platform.is_cpu():
        settings["kv_cache_memory_bytes"] = 1 << 30
    try:
        llm = vllm_engine.start(model, settings)
    except E3RLError:
        raise
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise CalibrationError(f"the engine does not start: {' '.join(str(error).split())[:300]}") from error
    try:
        params = [_params(llm, policy, temperature, max_tokens, seed + row) for row in range(len(prompts))]
        outputs = llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            params,
            use_tqdm=sys.stderr.isatty(),
        )
        answers = [_answer(output) for output in outputs]
        shapes = {name: getattr(params[0], name) for name in _SHAPES}
    finally:
        compat.shut_down(llm, with_process_group=True)
    facts = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, "sampling": shapes}
    return Sample(answers, {**facts, "vllm": vllm.__version__})


def _params(llm: Any, policy: HealingPolicy, temperature: float, max_tokens: int, seed: int) -> Any:
    params = llm.get_default_sampling_params()
    params.temperature, params.max_tokens, params.seed = temperature, max_tokens, seed
    params.extra_args = {compat.KEY: policy.model_dump(mode="json")}
    return params


def _answer(output: Any) -> Answer:
    (choice,) = output.outputs
    ops = load_ops(output.healing[0]) if hasattr(output, "healing") else []
    scores = [op.uncertainty for op in ops if isinstance(op, CommittedOp)]
    return Answer(
        text=choice.text,
        scores=tuple(Uncertainty(one.u, one.mean, one.max, one.slope) for one in scores),
        truncated=choice.finish_reason == "length",
    )
