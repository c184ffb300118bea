"""What healing does inside vLLM: redraws, restored sampling, bounds, groups, and what it must never leak."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.core.engines.vllm_engine import (
    PROMPTS,
    REDRAWN,
    REPEATING,
    answers,
    committed,
    erased,
    generate,
    ops,
    scheduler_of,
)

pytestmark = pytest.mark.engine


def continued(llm: Any, output: Any, count: int, length: int) -> list[int]:
    """What plain greedy decoding writes after the first `count` tokens of an answer."""
    prefix = list(output.prompt_token_ids) + list(output.outputs[0].token_ids[:count])
    plain = generate(llm, "off", [{"prompt_token_ids": prefix}], max_tokens=length)
    return list(plain[0].outputs[0].token_ids)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_after_a_redraw_the_next_segment_is_greedy_again(llm: Any, keep: str) -> None:
    policy = {**REDRAWN, "schedule": [9, 0], "keep": keep}
    for output in generate(llm, policy, PROMPTS[:6], max_tokens=16):
        assert list(output.outputs[0].token_ids[8:16]) == continued(llm, output, 8, 8)


def test_keep_best_releases_the_least_uncertain_draw(llm: Any) -> None:
    outputs = generate(llm, {**REDRAWN, "schedule": [9], "keep": "best"}, logprobs=0)
    assert any(op["attempt"] < op["attempts"] - 1 for op in ops(outputs, "committed"))
    for output in outputs:
        tokens = list(output.outputs[0].token_ids)
        assert [t for op in committed(output) for t in op["token_ids"]] == tokens
        assert len(output.outputs[0].logprobs) == len(tokens)
        logprobs = [c[t].logprob for c, t in zip(output.outputs[0].logprobs, tokens, strict=True)]
        assert [lp for op in committed(output) for lp in op["logprobs"]] == pytest.approx(logprobs, abs=1e-4)
        for op in committed(output):
            others = [e["uncertainty"]["u"] for e in erased(output) if e["segment"] == op["segment"]]
            assert op["uncertainty"]["u"] <= min(others, default=1e9)


def test_a_greedy_request_heals_because_its_redraws_sample(llm: Any) -> None:
    outputs = generate(llm, {"segment": {"tokens": 8}, "schedule": [1], "max_erasures": 1, "return_erased": True})
    pairs = [(e["token_ids"], c["token_ids"]) for o in outputs for e, c in zip(erased(o), committed(o), strict=False)]
    assert sum(a != b for a, b in pairs) > len(pairs) / 2
    assert {op["retry"]["temperature"] for op in ops(outputs, "erased")} == {0.7}


def test_seeded_requests_repeat_and_their_redraws_differ(llm: Any) -> None:
    policy = {**REDRAWN, "retry": {}}
    first = generate(llm, policy, PROMPTS[:4], temperature=1.0, seed=7)
    assert answers(first) == answers(generate(llm, policy, PROMPTS[:4], temperature=1.0, seed=7))
    draws = [tuple(op["token_ids"]) for output in first for op in erased(output) if op["segment"] == 0]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"temperature": 0.7, "top_p": 0.9, "presence_penalty": 0.5, "seed": 3}, id="sampled"),
        pytest.param({"logit_bias": {100: 3.0}, "repetition_penalty": 1.3}, id="greedy"),
    ],
)
def test_surprisals_are_raw_logprobs_whatever_shapes_the_sampling(llm: Any, shape: dict[str, Any]) -> None:
    policy = {**REPEATING, "return_erased": True}
    shaped = {**shape, "logprobs": 0}
    for output in generate(llm, policy, PROMPTS[:2], **shaped):
        choice = output.outputs[0]
        logprobs = [c[t].logprob for c, t in zip(choice.logprobs, choice.token_ids, strict=True)]
        assert [lp for op in committed(output) for lp in op["logprobs"]] == pytest.approx(logprobs, abs=1e-4)
    unasked = generate(llm, policy, PROMPTS[:2], **{**shaped, "logprobs": None})
    asked = generate(llm, policy, PROMPTS[:2], **shaped)
    for one, other in zip(unasked, asked, strict=True):
        assert one.outputs[0].logprobs is None
        assert [op["uncertainty"]["u"] for op in committed(one)] == pytest.approx(
            [op["uncertainty"]["u"] for op in committed(other)], abs=1e-4
        )


def test_budgets_bound_what_is_erased(llm: Any) -> None:
    outputs = generate(llm, {**REDRAWN, "budget": {"erased_tokens": 20}})
    for output in outputs:
        assert sum(op["tokens"] for op in erased(output)) <= 20
    assert {op["budget"] for op in ops(outputs, "budget")} == {"erased_tokens"}


def test_a_deadline_in_the_past_erases_nothing(llm: Any) -> None:
    outputs = generate(llm, {**REDRAWN, "budget": {"deadline_ms": 0}})
    assert not ops(outputs, "erased")
    assert {op["limit"] for op in ops(outputs, "committed") if "limit" in op} == {"deadline_ms"}


def test_siblings_share_a_group_and_it_is_gone_afterwards(llm: Any) -> None:
    policy = {"segment": {"tokens": 8}, "threshold": {"k": 0.0, "group_weight": 1.0}}
    outputs = generate(llm, policy, PROMPTS[:3], n=4, temperature=1.0)
    assert [len(output.outputs) for output in outputs] == [len(output.healing) for output in outputs] == [4, 4, 4]
    scheduler = scheduler_of(llm)
    assert not scheduler._groups and not scheduler._open and not scheduler._redraws


def test_bad_settings_are_refused_by_name(llm: Any) -> None:
    from vllm.exceptions import VLLMValidationError

    for settings, name in [
        ({"treshold": {}}, "healing.treshold"),
        ({"uncertainty": {"signal": "entropy"}}, "healing.uncertainty.signal"),
        ({"scope": "reasoning"}, "healing.scope"),
        ("maybe", "healing"),
    ]:
        with pytest.raises(VLLMValidationError, match=name):
            generate(llm, settings, PROMPTS[:1])
    with pytest.raises(VLLMValidationError, match=r"healing\.mode.*logprob_token_ids"):
        generate(llm, {"mode": "on"}, PROMPTS[:1], logprob_token_ids=[1, 2])


# --- pressure, aborts, accounting -----------------------------------------------------------------------------------


def test_a_thousand_aborts_leak_no_block(llm: Any) -> None:
    from vllm import SamplingParams

    rng = random.Random(0)
    scheduler = scheduler_of(llm)
    llm.reset_prefix_cache()
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    params = SamplingParams(max_tokens=100, temperature=0, extra_args={"healing": {**REDRAWN, "schedule": [2, 1]}})
    live: set[str] = set()
    aborted = in_erasure = made = 0
    while aborted < 1000:
        while len(live) < 24:
            llm.llm_engine.add_request(f"abort-{made}", rng.choice(PROMPTS), params.clone())
            live.add(f"abort-{made}")
            made += 1
        for output in llm.llm_engine.step():
            if output.finished:
                live.discard(output.request_id)
        erasing = {rid.rsplit("-", 1)[0] for rid, r in scheduler._open.items() if r.healer.attempt} & live
        for request_id in [*rng.sample(sorted(erasing), min(2, len(erasing))), *rng.sample(sorted(live), 2)]:
            if request_id in live:
                llm.llm_engine.abort_request([request_id])
                live.discard(request_id)
                aborted += 1
                in_erasure += request_id in erasing
    llm.llm_engine.abort_request(list(live))
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
    llm.llm_engine.step()
    assert in_erasure >= 500
    assert not scheduler.running and not scheduler.kv_holding_waiting and not scheduler.waiting
    assert not scheduler._open and not scheduler._redraws and not scheduler.requests
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == free


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_erasure_costs_its_tokens_and_at_most_one_more(llm: Any, temperature: float) -> None:
    scheduler = scheduler_of(llm)
    scheduled = []
    schedule = scheduler.schedule

    def counting(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        scheduled.append(output.total_num_scheduled_tokens)
        return output

    scheduler.schedule = counting
    llm.reset_prefix_cache()
    generate(llm, "off", skip_reading_prefix_cache=True)
    plain, scheduled[:] = sum(scheduled), []
    healed = generate(llm, {**REPEATING, "retry": {"temperature": temperature}}, skip_reading_prefix_cache=True)
    scheduler.schedule = schedule
    erasures = ops(healed, "erased")
    surplus = sum(scheduled) - plain - sum(op["tokens"] for op in erasures)
    assert 0 <= surplus <= len(erasures)
    assert surplus == sum(op["recomputed"] for op in [*erasures, *ops(healed, "committed")])


def test_memory_of_an_open_request_is_one_segment(llm: Any) -> None:
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=200, temperature=0, logprobs=2, extra_args={"healing": REPEATING})
    llm.llm_engine.add_request("long", PROMPTS[0], params)
    widest = 0
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
        for request in scheduler_of(llm)._open.values():
            held = len(request.healer.open_tokens) + len(request._rows) + len(request._released_rows) + len(request.ops)
            widest = max(widest, held)
    assert 8 <= widest <= 4 * 8
