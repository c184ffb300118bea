"""Deployments that press on healing: small caches, chunked prefill, adapters. Each test has an engine of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.engines.vllm_engine import (
    MAX_TOKENS,
    PROMPTS,
    REDRAWN,
    REPEATING,
    answers,
    committed,
    engine,
    erased,
    generate,
    ops,
    scheduler_of,
)

pytestmark = pytest.mark.engine


def test_no_erased_token_is_ever_served_from_the_prefix_cache(tiny: Path) -> None:
    with engine(tiny, block_size=32) as llm:
        policy = {**REDRAWN, "segment": {"tokens": 40}, "schedule": [1]}
        outputs = generate(llm, policy, max_tokens=120)
        baits = [
            list(output.prompt_token_ids)
            + [t for op in committed(output)[: bait["segment"]] for t in op["token_ids"]]
            + bait["token_ids"]
            for output in outputs
            for bait in erased(output)
        ]
        assert len(baits) >= len(PROMPTS)
        prompts = [{"prompt_token_ids": bait} for bait in baits]
        hit = generate(llm, "off", prompts, max_tokens=8)
        for output, bait, source in zip(hit, baits, [o for o in outputs for _ in erased(o)], strict=True):
            kept = list(source.prompt_token_ids) + list(source.outputs[0].token_ids)
            shared = next((i for i, (a, b) in enumerate(zip(bait, kept, strict=False)) if a != b), len(bait))
            assert output.num_cached_tokens <= shared
        llm.reset_prefix_cache()
        assert answers(hit) == answers(generate(llm, "off", prompts, max_tokens=8, skip_reading_prefix_cache=True))


def test_committed_blocks_do_enter_the_prefix_cache(tiny: Path) -> None:
    with engine(tiny) as llm:
        output = generate(llm, REPEATING, PROMPTS[:1], max_tokens=120)[0]
        prompt = list(output.prompt_token_ids) + list(output.outputs[0].token_ids)
        again = generate(llm, "off", [{"prompt_token_ids": prompt}], max_tokens=1)[0]
        assert again.num_cached_tokens >= (len(prompt) - 1) // 32 * 32 - 32 > 0


def test_preemption_in_mid_segment_loses_nothing(tiny: Path) -> None:
    with engine(tiny, num_gpu_blocks_override=14, max_model_len=256) as llm:
        scheduler = scheduler_of(llm)
        preempted = []
        preempt = scheduler._preempt_request
        scheduler._preempt_request = lambda r, *a, **k: (preempted.append(r.request_id), preempt(r, *a, **k))[1]
        healed = generate(llm, REPEATING, max_tokens=100)
        assert preempted
        assert answers(healed) == answers(generate(llm, "off", max_tokens=100))
        assert len(ops(healed, "erased")) > len(PROMPTS)


def test_a_seeded_request_survives_a_partial_prefill(tiny: Path) -> None:
    with engine(tiny, max_num_batched_tokens=64) as llm:
        prompts = [" ".join(PROMPTS), *PROMPTS]
        first = generate(llm, REPEATING, prompts, temperature=1.0, seed=7, max_tokens=16)
        assert answers(first) == answers(generate(llm, REPEATING, prompts, temperature=1.0, seed=7, max_tokens=16))


def test_lora_requests_heal(tiny: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from vllm.lora.request import LoRARequest

    torch.manual_seed(1)
    weights = {}
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{prefix}.lora_A.weight"] = torch.randn(8, 64)
        weights[f"{prefix}.lora_B.weight"] = torch.randn(64, 8)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with engine(tiny, enable_lora=True, max_lora_rank=8) as llm:
        from vllm import SamplingParams

        def adapted(healing: object) -> Any:
            params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0, extra_args={"healing": healing})
            request = LoRARequest("wild", 1, str(tmp_path))
            return llm.generate(PROMPTS, params, lora_request=request, use_tqdm=False)

        healed, plain = adapted(REPEATING), adapted("off")
        assert answers(healed) == answers(plain) != answers(generate(llm, "off"))
        assert ops(healed, "erased")
