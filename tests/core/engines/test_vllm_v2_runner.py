"""Contract with model runner V2, the GPU default, which cannot run on CPUs: what a resumed request brings along."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from e3rl_core.engines import vllm_compat as compat
from tests.core.engines.recording_worker import RecordingWorker, greedy_text, steps
from tests.core.engines.vllm_engine import FROM_ONSET, REPEATING, scheduler_of

pytestmark = pytest.mark.engine

BLOCK = 32


@pytest.fixture
def make(llm: Any) -> Any:
    """A fresh healing scheduler that believes in model runner V2, with `blocks` blocks of KV cache."""

    def build(blocks: int = 512) -> Any:
        template = scheduler_of(llm)
        scheduler = type(template)(
            vllm_config=template.vllm_config,
            kv_cache_config=dataclasses.replace(template.kv_cache_config, num_blocks=blocks),
            structured_output_manager=template.structured_output_manager,
            block_size=template.block_size,
            log_stats=False,
        )
        scheduler.use_v2_model_runner = True
        return scheduler

    return build


def request(llm: Any, req_id: str, prompt: list[int], healing: object, **params: Any) -> Any:
    from vllm import SamplingParams
    from vllm.v1.request import Request

    core = llm.llm_engine.engine_core.engine_core
    options = {"max_tokens": 60, "temperature": 0.0, **params}
    return Request(
        request_id=req_id,
        prompt_token_ids=prompt,
        sampling_params=SamplingParams(extra_args={"healing": healing}, **options),
        pooling_params=None,
        block_hasher=core.request_block_hasher,
    )


def drive(scheduler: Any, worker: RecordingWorker) -> dict[str, list[int]]:
    texts: dict[str, list[int]] = {}
    for outputs in steps(scheduler, worker):
        for output in outputs:
            texts.setdefault(output.request_id, []).extend(output.new_token_ids)
    return texts


def test_a_resumed_request_brings_kept_tokens_its_own_blocks_and_the_redraws_parameters(llm: Any, make: Any) -> None:
    scheduler, worker = make(), RecordingWorker(BLOCK)
    policy = {**REPEATING, "schedule": [0, 1], "retry": {"temperature": 0.9}}
    scheduler.add_request(request(llm, "a", list(range(100, 140)), policy, seed=5, max_tokens=24))
    texts = drive(scheduler, worker)
    first, redrawn, restored = worker.arrivals["a"]
    kept = list(range(100, 140)) + texts["a"][:8]
    assert redrawn.prefill_token_ids[:48] == kept == redrawn.prefill_token_ids
    assert redrawn.num_computed_tokens == 47
    assert redrawn.block_ids[0][: len(first.block_ids[0])] == first.block_ids[0]
    assert (redrawn.sampling_params.temperature, restored.sampling_params.temperature) == (0.9, 0.0)
    assert redrawn.sampling_params.seed not in (None, 5)
    assert restored.prefill_token_ids == list(range(100, 140)) + texts["a"][:16]
    assert restored.num_computed_tokens == 55


#: The stand-in's surprisals are spread over 0 to 1 nats.
ONSETS = {**FROM_ONSET, "threshold": {"k": -0.75, "eta": 0, "prior_segments": 1e6}}


@pytest.mark.parametrize("policy", [REPEATING, ONSETS], ids=["segments", "onsets"])
@pytest.mark.parametrize("blocks", [512, 24])
def test_forced_erasures_change_nothing_with_two_steps_in_flight(
    llm: Any, make: Any, blocks: int, policy: dict[str, Any]
) -> None:
    scheduler, worker = make(blocks), RecordingWorker(BLOCK)
    prompts = {f"r{i}": list(range(50 + i, 80 + 3 * i)) for i in range(12)}
    for req_id, prompt in prompts.items():
        scheduler.add_request(request(llm, req_id, prompt, policy))
    texts = drive(scheduler, worker)
    assert texts == {req_id: greedy_text(prompt, 60) for req_id, prompt in prompts.items()}
    assert worker.scheduled > sum(len(prompt) + 60 for prompt in prompts.values())


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_erasure_schedules_its_tokens_and_at_most_one_more(llm: Any, make: Any, temperature: float) -> None:
    scheduler, worker = make(), RecordingWorker(BLOCK)
    prompt = list(range(100, 140))
    policy = {**REPEATING, "schedule": [1], "retry": {"temperature": temperature}}
    scheduler.add_request(request(llm, "a", prompt, policy, max_tokens=64))
    drive(scheduler, worker)
    erasures, erased = 8, 64
    assert worker.scheduled - (len(prompt) + 64 - 1 + erased) <= erasures


def test_keep_best_feeds_the_reinserted_draw_again(llm: Any, make: Any) -> None:
    scheduler, worker = make(), RecordingWorker(BLOCK)
    policy = {**REPEATING, "schedule": [9], "max_erasures": 3, "keep": "best", "retry": {"temperature": 1.0}}
    prompts = {f"b{i}": list(range(40 + i, 70 + i)) for i in range(6)}
    for req_id, prompt in prompts.items():
        scheduler.add_request(request(llm, req_id, prompt, policy, max_tokens=40))
    texts = drive(scheduler, worker)
    for req_id, prompt in prompts.items():
        assert len(texts[req_id]) == 40
        last = worker.arrivals[req_id][-1].prefill_token_ids
        assert (prompt + texts[req_id])[: len(last)] == last


def test_a_prompt_that_repeats_erased_tokens_hits_no_poisoned_block(llm: Any, make: Any) -> None:
    scheduler, worker = make(), RecordingWorker(BLOCK)
    policy = {"segment": {"tokens": 70}, "schedule": [1], "return_erased": True, "retry": {"temperature": 1.0}}
    prompt = list(range(100, 140))
    scheduler.add_request(request(llm, "a", prompt, policy, max_tokens=210))
    drafts, kept = [], list(prompt)
    for outputs in steps(scheduler, worker):
        for output in outputs:
            for op in compat.take_ops(output):
                if op["op"] == "erased":
                    drafts.append(kept + op["token_ids"])
            kept.extend(output.new_token_ids)
    assert len(drafts) == 3
    for i, bait in enumerate([*drafts, kept]):
        scheduler.add_request(request(llm, f"bait{i}", bait, "off", max_tokens=4))
    drive(scheduler, worker)
    hits = {f"bait{i}": worker.arrivals[f"bait{i}"][0].num_computed_tokens for i in range(4)}
    assert hits["bait3"] > 210 > max(hits["bait0"], 1)


@pytest.mark.parametrize("seed", range(20))
def test_random_schedules_aborts_and_pressure_never_read_stale_kv(llm: Any, make: Any, seed: int) -> None:
    """Slots change hands all the time here; the worker notices whoever reads one that is not its own."""
    from vllm.v1.request import RequestStatus

    rng = random.Random(seed)
    scheduler, worker = make(rng.choice([16, 24, 64])), RecordingWorker(BLOCK)
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    for i in range(16):
        policy = {
            "segment": {"tokens": rng.choice([1, 5, 31, 32, 33])},
            "schedule": [rng.randrange(4) for _ in range(3)],
            "max_erasures": 3,
            "keep": rng.choice(["last", "best"]),
            "retry": {"temperature": rng.choice([0, 1.0])},
        }
        prompt = list(range(100, 100 + rng.choice([1, 2, 32, 64, 65])))
        healing = rng.choice([policy, policy, "off"])
        scheduler.add_request(request(llm, f"{seed}-{i}", prompt, healing, max_tokens=rng.choice([1, 40, 90])))
    for _ in steps(scheduler, worker, depth=rng.choice([1, 2, 3])):
        if scheduler.requests and rng.random() < 0.1:
            scheduler.finish_requests(rng.choice(list(scheduler.requests)), RequestStatus.FINISHED_ABORTED)
    assert not scheduler.running and not scheduler.kv_holding_waiting and not scheduler._open
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == free
