"""Healed equals plain where erasing cannot change anything: greedy redraws of greedy draws, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.engines.vllm_engine import FROM_ONSET, PROMPTS, REPEATING, answers, engine, generate, heads, ops

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}},
    "required": ["name", "n"],
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"enable_prefix_caching": True}, id="async-cached"),
        pytest.param({"enable_prefix_caching": False}, id="async-uncached"),
        pytest.param({"enable_prefix_caching": True, "in_flight": False}, id="sync-cached"),
        pytest.param({"enable_prefix_caching": True, "max_num_batched_tokens": 64}, id="async-chunked"),
    ],
)
def any_llm(request: pytest.FixtureRequest, tiny: Path) -> Iterator[Any]:
    with engine(tiny, **request.param) as llm:
        yield llm


def structured() -> dict[str, Any]:
    from vllm.sampling_params import StructuredOutputsParams

    return {"structured_outputs": StructuredOutputsParams(json=SCHEMA)}


PARAMETERS: dict[str, Any] = {
    "plain": {},
    "stop": {"stop": ["e", "an"]},
    "stop-included": {"stop": ["e", "an"], "include_stop_str_in_output": True},
    "min_tokens": {"min_tokens": 40, "stop": ["e"]},
    "penalties": {"frequency_penalty": 1.0, "repetition_penalty": 1.3},
    "logit_bias": {"logit_bias": {100: 5.0}},
    "json": structured,
}


def healed_as_plain(llm: Any, policy: dict[str, Any], name: str, batch: int) -> list[Any]:
    """Outputs of a policy under parameters by name, whose answers are those without healing."""
    params = PARAMETERS[name]() if callable(PARAMETERS[name]) else PARAMETERS[name]
    prompts = PROMPTS[:batch]
    healed = generate(llm, policy, prompts, **params)
    assert answers(healed) == answers(generate(llm, "off", prompts, **params))
    return healed


CASES = [("plain", 1), *((name, 12) for name in PARAMETERS)]


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_forced_erasures_change_nothing(any_llm: Any, name: str, batch: int) -> None:
    assert len(ops(healed_as_plain(any_llm, REPEATING, name, batch), "erased")) >= batch


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_erasing_from_the_onset_changes_nothing(any_llm: Any, name: str, batch: int) -> None:
    assert heads(healed_as_plain(any_llm, FROM_ONSET, name, batch)) > 0


@pytest.mark.parametrize("policy", [REPEATING, FROM_ONSET], ids=["segments", "onsets"])
@pytest.mark.parametrize("top", [0, 3])
def test_logprobs_are_those_of_the_committed_tokens(any_llm: Any, top: int, policy: dict[str, Any]) -> None:
    healed = generate(any_llm, policy, logprobs=top)
    plain = generate(any_llm, "off", logprobs=top)
    for ours, theirs in zip(healed, plain, strict=True):
        assert len(ours.outputs[0].logprobs) == len(ours.outputs[0].token_ids)
        for mine, stock in zip(ours.outputs[0].logprobs, theirs.outputs[0].logprobs, strict=True):
            assert mine.keys() == stock.keys()
            assert all(mine[t].rank == stock[t].rank for t in mine)
            assert all(mine[t].logprob == pytest.approx(stock[t].logprob, abs=1e-4) for t in mine)


def test_prompt_logprobs_wait_for_the_first_commit(any_llm: Any) -> None:
    healed = generate(any_llm, REPEATING, prompt_logprobs=1)
    plain = generate(any_llm, "off", prompt_logprobs=1)
    for ours, theirs in zip(healed, plain, strict=True):
        assert [p and p.keys() for p in ours.prompt_logprobs] == [p and p.keys() for p in theirs.prompt_logprobs]


def test_shadow_changes_nothing_and_says_what_it_would_have_erased(any_llm: Any) -> None:
    shadow = generate(any_llm, {"mode": "shadow", "segment": {"tokens": 8}, "schedule": [1, 0]})
    assert answers(shadow) == answers(generate(any_llm, "off"))
    commits = ops(shadow, "committed")
    assert {op.get("reason") for op in commits if op["segment"] % 2 == 0} == {"schedule"}
    assert not ops(shadow, "erased")


def test_mixed_batches_keep_apart(any_llm: Any) -> None:
    from vllm import SamplingParams

    modes: list[Any] = [REPEATING, "off", {"mode": "shadow"}] * 4
    params = [SamplingParams(max_tokens=40, temperature=0, extra_args={"healing": mode}) for mode in modes]
    mixed = any_llm.generate(PROMPTS, params, use_tqdm=False)
    assert answers(mixed) == answers(generate(any_llm, "off", max_tokens=40))


@pytest.mark.parametrize("batch", [1, 12])
def test_a_real_model_too(smollm2: Path, batch: int) -> None:
    with engine(smollm2) as llm:
        healed = generate(llm, REPEATING, PROMPTS[:batch])
        assert answers(healed) == answers(generate(llm, "off", PROMPTS[:batch]))
        assert len(ops(healed, "erased")) >= batch
