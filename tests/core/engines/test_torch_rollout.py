"""The torch loop on a tiny random model: what healing changes, and what it must not change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from e3rl_core.engines.torch_cache import CHUNK, RaggedCache
from e3rl_core.engines.torch_rollout import Rollout, RolloutDraw, rollout
from e3rl_core.errors import EngineRefusal, PolicyError
from e3rl_core.healer import Limit, Reason
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import DEFAULT_PRIOR, Profile

VOCABULARY = 64
PROMPTS = [[5, 9, 3], [7], [1, 2, 3, 4, 5, 6, 7, 8], [30, 31]]
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
    "eos_token_id": None,
}


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only stand in each other's way at this size
    yield LlamaForCausalLM(LlamaConfig(**TINY)).eval()
    torch.set_num_threads(threads)


def healing(**settings: object) -> HealingPolicy:
    """Four-token segments without a budget, unless `settings` says otherwise."""
    return HealingPolicy().updated({"segment": {"tokens": 4}, "budget": {"erased_fraction": None}, **settings})


def scheduled(*schedule: int, **settings: object) -> HealingPolicy:
    return healing(schedule=list(schedule), max_erasures=max(schedule), **settings)


def generated(model: Any, prompt: list[int], max_tokens: int) -> tuple[int, ...]:
    output = model.generate(torch.tensor([prompt]), max_new_tokens=max_tokens, do_sample=False, pad_token_id=0)
    return tuple(output[0, len(prompt) :].tolist())


def logprobs_of(model: Any, prompt: list[int], tokens: tuple[int, ...], temperature: float = 1.0) -> torch.Tensor:
    """From one plain forward over the whole text. (_T,)."""
    text = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logprobs = (model(text).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    return logprobs.gather(-1, text[0, len(prompt) :].unsqueeze(-1)).squeeze(-1)


def drawn(result: Rollout) -> list[int]:
    return [token for draw in result.draws for token in draw.tokens]


def decisions(result: Rollout) -> list[tuple[object, ...]]:
    return [(d.segment, d.attempt, d.tokens, d.kept, d.reason, d.limit) for d in result.draws]


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_without_healing_greedy_text_is_what_generate_writes(model: Any, mode: str) -> None:
    results = rollout(model, PROMPTS, healing(mode=mode), max_tokens=20, temperature=0)
    assert [r.tokens for r in results] == [generated(model, p, 20) for p in PROMPTS]
    assert {r.finish for r in results} == {"length"}


def test_a_greedy_redraw_repeats_so_erasing_changes_nothing(model: Any) -> None:
    policy = scheduled(2, 0, 1, retry={"temperature": 0.0})
    results = rollout(model, PROMPTS, policy, max_tokens=22, temperature=0)
    assert [r.tokens for r in results] == [generated(model, p, 22) for p in PROMPTS]
    assert [r.totals.erasures for r in results] == [6] * len(PROMPTS)


def test_erasures_are_paid_for_once(model: Any) -> None:
    for prompt, r in zip(PROMPTS, rollout(model, PROMPTS, scheduled(2, 0, 1), max_tokens=22), strict=True):
        assert r.forward_tokens == len(prompt) + r.totals.committed_tokens + r.totals.erased_tokens - 1


@pytest.mark.parametrize("keep", ["last", "best"])
def test_erasing_from_the_onset_too(model: Any, keep: str) -> None:
    """Greedy redraws repeat; an erasure is paid for once; and some draws do keep their heads."""
    bar = {"k": 0.0, "eta": 0.0, "prior_segments": 1e6}
    policy = healing(erase_from="onset", threshold=bar, max_erasures=2, keep=keep, retry={"temperature": 0.0})
    results = rollout(model, PROMPTS, policy, max_tokens=22, temperature=0)
    assert [r.tokens for r in results] == [generated(model, p, 22) for p in PROMPTS]
    kept = [draw for r in results for draw in r.draws if draw.kept]
    assert any(len(draw.tokens) < 4 and draw.reason is None for draw in kept)
    if keep == "last":
        for prompt, r in zip(PROMPTS, results, strict=True):
            assert r.forward_tokens == len(prompt) + r.totals.committed_tokens + r.totals.erased_tokens - 1


def test_a_greedy_request_samples_its_redraws(model: Any) -> None:
    first, second, *_ = rollout(model, PROMPTS[:1], scheduled(1), max_tokens=4, temperature=0)[0].draws
    assert first.tokens == generated(model, PROMPTS[0], 4)
    assert (first.temperature, second.temperature) == (0, 0.7)
    assert second.tokens != first.tokens


@pytest.mark.parametrize("erase_from", ["segment", "onset"])
@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_gives_what_its_rows_give_alone(model: Any, keep: str, temperature: float, erase_from: str) -> None:
    policy = healing(threshold={"k": -1.0}, max_erasures=3, keep=keep, erase_from=erase_from)
    together = rollout(model, PROMPTS, policy, max_tokens=40, temperature=temperature, top_p=0.95, eos_ids=[11])
    for index, prompt in enumerate(PROMPTS):
        alone = rollout(
            model, [prompt], policy, max_tokens=40, temperature=temperature, top_p=0.95, eos_ids=[11], seed=index
        )[0]
        assert together[index].tokens == alone.tokens
        assert drawn(together[index]) == drawn(alone)
        assert [d.reason for d in together[index].draws] == [d.reason for d in alone.draws]
        assert together[index].surprisals == pytest.approx(alone.surprisals, abs=1e-4)


def test_rows_erase_at_their_own_times(model: Any) -> None:
    policies = [scheduled(count, retry={"temperature": 0.0}) if count else healing(mode="off") for count in range(4)]
    results = rollout(model, PROMPTS, policies, max_tokens=16, temperature=0)
    assert [r.totals.erasures for r in results] == [0, 4, 8, 12]
    assert [r.tokens for r in results] == [generated(model, p, 16) for p in PROMPTS]


@pytest.mark.parametrize("erase_from", ["segment", "onset"])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_every_draw_is_scored_behind_its_own_prefix(model: Any, keep: str, erase_from: str) -> None:
    settings = {"max_erasures": 2, "keep": keep, "erase_from": erase_from, "retry": {"temperature": 1.4}}
    policy = healing(threshold={"k": -1.0}, **settings)
    for prompt, r in zip(PROMPTS, rollout(model, PROMPTS, policy, max_tokens=24), strict=True):
        assert r.surprisals == pytest.approx((-logprobs_of(model, prompt, r.tokens)).tolist(), abs=1e-4)
        for draw in r.draws:
            prefix = [*prompt, *r.tokens[: draw.start]]
            raw, tempered = (logprobs_of(model, prefix, draw.tokens, heat) for heat in (1.0, draw.temperature))
            assert draw.surprisals == pytest.approx((-raw).tolist(), abs=1e-4)
            assert draw.logprobs == pytest.approx(tempered.tolist(), abs=1e-4)


@pytest.mark.parametrize("erase_from", ["segment", "onset"])
def test_kept_draws_make_the_response(model: Any, erase_from: str) -> None:
    for r in rollout(model, PROMPTS, healing(threshold={"k": -1.0}, keep="best", erase_from=erase_from), max_tokens=30):
        kept = [draw for draw in r.draws if draw.kept]
        assert tuple(token for draw in kept for token in draw.tokens) == r.tokens
        assert [draw.segment for draw in kept] == list(range(r.totals.segments))
        assert len(r.draws) - len(kept) == r.totals.erasures


def test_keep_best_keeps_the_calmest_draw_of_a_capped_segment(model: Any) -> None:
    policy = healing(threshold={"k": -3.0, "floor": 0.0}, max_erasures=4, keep="best", retry={"temperature": 2.0})
    results = rollout(model, PROMPTS, policy, max_tokens=12)
    swapped = 0
    for r in results:
        for segment in range(r.totals.segments):
            draws = [draw for draw in r.draws if draw.segment == segment]
            kept = next(draw for draw in draws if draw.kept)
            if draws[-1].limit is not None:
                assert kept.uncertainty.u == min(draw.uncertainty.u for draw in draws)
                swapped += kept is not draws[-1]
    assert swapped


def test_a_response_ends_with_its_end_token(model: Any) -> None:
    free = generated(model, PROMPTS[0], 20)
    eos = free[9]
    ended = rollout(model, PROMPTS, healing(mode="shadow"), max_tokens=20, temperature=0, eos_ids=[eos])
    assert (ended[0].finish, ended[0].tokens) == ("stop", free[: free.index(eos) + 1])
    assert [r.tokens for r in ended[1:]] == [
        tokens[: tokens.index(eos) + 1] if eos in tokens else tokens
        for tokens in (generated(model, prompt, 20) for prompt in PROMPTS[1:])
    ]


def test_an_erased_end_does_not_end_the_response(model: Any) -> None:
    eos = generated(model, PROMPTS[0], 1)[0]
    r = rollout(model, PROMPTS[:1], scheduled(1), max_tokens=8, temperature=0, eos_ids=[eos])[0]
    assert r.draws[0].tokens == (eos,)
    assert not r.draws[0].kept
    assert r.tokens


def test_budgets_bound_what_is_erased(model: Any) -> None:
    policy = healing(threshold={"k": -3.0, "floor": 0.0}, budget={"erased_tokens": 9, "erased_fraction": None})
    results = rollout(model, PROMPTS, policy, max_tokens=24)
    assert [r.totals.erased_tokens for r in results] == [8] * len(PROMPTS)
    assert all(Limit.ERASED_TOKENS in r.totals.exhausted for r in results)


def test_nothing_is_erased_after_the_deadline(model: Any) -> None:
    policy = healing(threshold={"k": -3.0}, budget={"deadline_ms": 0, "erased_fraction": None})
    r = rollout(model, PROMPTS[:1], policy, max_tokens=8)[0]
    assert (r.totals.erasures, r.draws[0].limit) == (0, Limit.DEADLINE)


def test_entropy_can_be_the_signal(model: Any) -> None:
    policy = healing(mode="shadow", uncertainty={"signal": "entropy", "smoothing": 0.0, "max": 0.0, "rise": 0.0})
    r = rollout(model, PROMPTS[:1], policy, max_tokens=4)[0]
    with torch.no_grad():
        logprobs = model(torch.tensor([[*PROMPTS[0], *r.tokens]])).logits[0, len(PROMPTS[0]) - 1 : -1].log_softmax(-1)
    entropy = torch.distributions.Categorical(logits=logprobs).entropy().mean().item()
    assert r.draws[0].uncertainty.u == pytest.approx(entropy, abs=1e-4)
    assert r.draws[0].surprisals == pytest.approx((-logprobs_of(model, PROMPTS[0], r.tokens)).tolist(), abs=1e-4)


def test_siblings_move_each_others_thresholds(model: Any) -> None:
    policy = healing(mode="shadow", threshold={"group_weight": 1.0, "k": 0.0, "eta": 0.0, "floor": 0.0})
    pair = rollout(model, [PROMPTS[0]] * 3, policy, max_tokens=4, groups=[7, 7, 8])
    first, second, alone = (r.draws[0] for r in pair)
    assert second.threshold == pytest.approx(first.uncertainty.u)
    assert alone.threshold == first.threshold == pytest.approx(DEFAULT_PRIOR.mean)


@pytest.mark.parametrize(
    ("signal", "erase_from"), [("surprisal", "segment"), ("entropy", "segment"), ("surprisal", "onset")]
)
def test_scoring_given_tokens_decides_as_sampling_them_did(model: Any, signal: str, erase_from: str) -> None:
    settings = {"uncertainty": {"signal": signal}, "erase_from": erase_from}
    policy = healing(threshold={"k": -0.5}, max_erasures=2, keep="best", **settings)
    sampled = rollout(model, PROMPTS, policy, max_tokens=24, eos_ids=[11])
    forced = rollout(model, PROMPTS, policy, max_tokens=24, eos_ids=[11], forced=[drawn(r) for r in sampled], seed=99)
    assert [decisions(r) for r in forced] == [decisions(r) for r in sampled]
    assert [r.tokens for r in forced] == [r.tokens for r in sampled]
    assert [r.finish for r in forced] == [r.finish for r in sampled]


def test_given_tokens_that_run_out_end_the_response(model: Any) -> None:
    r = rollout(model, PROMPTS[:1], healing(mode="shadow"), max_tokens=24, forced=[[1, 2, 3, 4, 5, 6]])[0]
    assert (r.tokens, r.finish, [len(draw.tokens) for draw in r.draws]) == ((1, 2, 3, 4, 5, 6), "forced", [4, 2])


def test_given_tokens_that_end_in_an_erasure_leave_what_was_committed(model: Any) -> None:
    r = rollout(model, PROMPTS[:1], scheduled(0, 1), max_tokens=24, forced=[[1, 2, 3, 4, 5, 6, 7, 8]])[0]
    assert (r.tokens, r.finish, r.draws[-1].kept) == ((1, 2, 3, 4), "forced", False)


def test_seeds_repeat_and_differ(model: Any) -> None:
    once, again, other = (rollout(model, PROMPTS, healing(), max_tokens=12, seed=seed) for seed in (3, 3, 4))
    assert once == again
    assert once != other


def test_boundaries_end_segments(model: Any) -> None:
    table = bytes(1 if token % 3 == 0 else 0 for token in range(VOCABULARY))
    policy = healing(mode="shadow", segment={"unit": "sentence", "min_tokens": 2, "max_tokens": 6})
    r = rollout(model, PROMPTS[:1], policy, max_tokens=40, boundaries=table)[0]
    ends = [draw.tokens[-1] % 3 == 0 or len(draw.tokens) == 6 for draw in r.draws[:-1]]
    assert all(ends)
    assert len({len(draw.tokens) for draw in r.draws}) > 1


def test_healing_can_be_confined_to_the_reasoning(model: Any) -> None:
    end = generated(model, PROMPTS[0], 6)[5]
    r = rollout(
        model, PROMPTS[:1], healing(mode="shadow", scope="reasoning"), max_tokens=20, temperature=0, reasoning_end=end
    )[0]
    scored = [token for draw in r.draws for token in draw.tokens]
    assert scored == list(r.tokens[: r.tokens.index(end) + 1])
    assert len(r.tokens) == len(r.surprisals) == 20


def test_a_profile_is_the_prior(model: Any) -> None:
    policy = healing(mode="shadow", threshold={"k": 0.0})
    r = rollout(model, PROMPTS[:1], policy, max_tokens=4, profile=Profile(mean=(9.0,), std=(1.0,)))[0]
    assert r.draws[0].threshold == pytest.approx(9.0)


def test_long_ragged_batches_stay_right(model: Any) -> None:
    policy = scheduled(0, 4, keep="best", retry={"temperature": 2.0})
    plain = healing(mode="off")
    length = 2 * CHUNK + 1
    results = rollout(model, PROMPTS, [policy, plain, policy, plain], max_tokens=length)
    for prompt, r in zip(PROMPTS, results, strict=True):
        assert r.surprisals == pytest.approx((-logprobs_of(model, prompt, r.tokens)).tolist(), abs=1e-3)


@pytest.mark.parametrize("seats", [1, 2, 3])
def test_rows_give_their_seats_on_and_draw_what_they_would_have_drawn(model: Any, seats: int) -> None:
    policies = [healing(threshold={"k": -1.0}, max_erasures=3, keep="best"), healing(mode="off")] * 4
    prompts, settings = PROMPTS * 2, {"max_tokens": 24, "eos_ids": [11]}
    together = rollout(model, prompts, policies, **settings)
    seated = rollout(model, prompts, policies, seats=seats, **settings)
    assert [decisions(r) for r in seated] == [decisions(r) for r in together]
    assert [r.tokens for r in seated] == [r.tokens for r in together]
    assert [r.forward_tokens for r in seated] == [r.forward_tokens for r in together]


def test_no_more_rows_run_than_there_are_seats(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    step = RaggedCache.step
    monkeypatch.setattr(
        RaggedCache, "step", lambda cache, tokens: (batches.append(len(tokens)), step(cache, tokens))[1]
    )
    rollout(model, PROMPTS * 2, [scheduled(1), healing(mode="off")] * 4, max_tokens=8, seats=3)
    assert max(batches) == 3


def test_the_cache_is_as_wide_as_its_longest_row(model: Any) -> None:
    cache = RaggedCache(model)
    with torch.inference_mode():
        cache.admit(PROMPTS)
        for _ in range(2 * CHUNK):
            cache.step([1] * len(PROMPTS))
            for row in range(len(PROMPTS)):
                cache.cut(row, 1)
    assert cache.width == 1


def test_eager_attention_gives_the_same(model: Any) -> None:
    policy = healing(threshold={"k": -1.0}, max_erasures=2)
    usual = rollout(model, PROMPTS, policy, max_tokens=24)
    model.set_attn_implementation("eager")
    try:
        eager = rollout(model, PROMPTS, policy, max_tokens=24)
    finally:
        model.set_attn_implementation("sdpa")
    assert [decisions(r) for r in eager] == [decisions(r) for r in usual]


def test_the_model_is_left_in_its_mode(model: Any) -> None:
    model.train()
    rollout(model, PROMPTS[:1], healing(), max_tokens=2)
    assert model.training
    model.eval()


def test_no_prompts_no_responses(model: Any) -> None:
    assert rollout(model, [], healing(), max_tokens=2) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompts": [[]]}, "prompt without tokens"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"seats": 0}, "seats is 0"),
        ({"groups": [1, 2]}, "groups has 2 entries for 1 prompts"),
        ({"forced": [[]]}, "forced without tokens"),
        ({"policy": [healing()] * 2}, "policy has 2 entries"),
    ],
)
def test_impossible_calls_say_why(model: Any, arguments: dict[str, Any], says: str) -> None:
    call = {"prompts": [[1]], "policy": healing(), "max_tokens": 4, **arguments}
    with pytest.raises(ValueError, match=says):
        rollout(model, call.pop("prompts"), call.pop("policy"), **call)


def test_confining_to_the_reasoning_needs_its_end(model: Any) -> None:
    with pytest.raises(PolicyError, match="reasoning_end"):
        rollout(model, PROMPTS, healing(scope="reasoning"), max_tokens=4)


def test_a_sliding_window_is_refused() -> None:
    windowed = MistralForCausalLM(MistralConfig(**TINY, sliding_window=8))
    with pytest.raises(EngineRefusal, match="sliding"):
        rollout(windowed, PROMPTS, healing(), max_tokens=4)


def test_a_draw_that_no_limit_forced_names_its_reason(model: Any) -> None:
    draws: list[RolloutDraw] = list(rollout(model, PROMPTS[:1], scheduled(1, 0), max_tokens=8)[0].draws)
    assert [(draw.kept, draw.reason) for draw in draws] == [
        (False, Reason.SCHEDULE),
        (True, None),
        (True, None),
    ]
