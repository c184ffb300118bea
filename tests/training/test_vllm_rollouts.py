"""vLLM rollouts: they report what the model says behind each draw's own prefix, and follow its weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

pytest.importorskip("vllm")

from e3rl_core.engines.torch_rollout import Rollout, rollout
from e3rl_core.errors import PolicyError, RecipeError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile
from e3rl_core.segmentation import boundary_table
from e3rl_training.config import E3RLConfig
from e3rl_training.trainer import E3RLTrainer
from e3rl_training.vllm_rollouts import VllmRollouts
from e3rl_training.warmup import make_tokenizer
from tests.core.engines.vllm_engine import async_scheduling

pytestmark = pytest.mark.engine

EOS = 1
MAX_TOKENS = 24
PROMPTS = [[5, 6, 7], [8, 9, 10, 11]]
ROWS = [prompt for prompt in PROMPTS for _ in range(4)]
GROUPS = [0, 0, 0, 0, 1, 1, 1, 1]

#: Without group statistics a row's thresholds are its own: another engine can be asked for the same ones.
ALONE = {"segment": {"tokens": 6}, "threshold": {"group_weight": 0.0}}
POLICIES = {
    "scheduled": {**ALONE, "schedule": [1, 0]},
    "by-threshold": {**ALONE, "threshold": {"group_weight": 0.0, "k": 0.0}, "max_erasures": 2},
    "on-a-budget": {**ALONE, "schedule": [1], "budget": {"erased_tokens": 7}},
    "sentences": {**ALONE, "segment": {"unit": "sentence", "min_tokens": 3, "max_tokens": 9}, "schedule": [1, 0]},
    "shadow": {**ALONE, "schedule": [1, 0], "mode": "shadow"},
    "off": {"mode": "off"},
}
#: What keeps a draw from being erased under these.
LIMITS = {"by-threshold": {"erased_fraction"}, "on-a-budget": {"erased_tokens"}}

SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 64,
    "block_size": 32,
    "max_num_seqs": 16,
    "kv_cache_memory_bytes": 1 << 28,
}


def policy_of(name: str) -> HealingPolicy:
    return HealingPolicy().updated(POLICIES[name])


def tiny_model(seed: int, tied: bool) -> Any:
    """Two random layers with text that is neither uniform nor certain, and a head size that vLLM serves."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(make_tokenizer()), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, eos_token_id=EOS,
        bos_token_id=None, initializer_range=0.15, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


#: Two ways an engine may be: as on CPUs, and with a step in flight at every erasure, as on GPUs.
KINDS = {"untied": {"tied": False, "in_flight": False}, "tied-in-flight": {"tied": True, "in_flight": True}}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, bool]:
    return request.param


@pytest.fixture(scope="module")
def model(kind: dict[str, bool]) -> Any:
    return tiny_model(0, kind["tied"])


@pytest.fixture(scope="module")
def boundaries() -> bytes:
    tokenizer = make_tokenizer()
    return boundary_table(tokenizer.batch_decode([[token] for token in range(len(tokenizer))]))


@contextmanager
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other at every operation crawl when a neighbour has one of two cores."""
    count, set_count = torch.get_num_threads(), torch.set_num_threads  # vLLM replaces it by one that does nothing
    set_count(1)
    try:
        yield
    finally:
        torch.set_num_threads = set_count
        set_count(count)


@pytest.fixture(scope="module")
def shared(model: Any, kind: dict[str, bool], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmRollouts]:
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    with patch.dict(os.environ), one_thread(), async_scheduling(kind["in_flight"]):
        engine = VllmRollouts(str(folder), temperature=1.0, top_p=1.0, eos_ids=[EOS], **SETTINGS)
        yield engine
        engine.close()


@pytest.fixture
def engine(shared: VllmRollouts, model: Any) -> Iterator[VllmRollouts]:
    """The module's engine, given back with the weights it had."""
    yield shared
    shared.load_weights(model)


def sample(
    engine: VllmRollouts, policies: Sequence[HealingPolicy], prompts: Sequence[Sequence[int]] = ROWS, **over: Any
) -> list[Rollout]:
    options = {"groups": GROUPS, "max_tokens": MAX_TOKENS, "profile": None, "seed": 3, **over}
    return engine.sample(prompts, policies, **options)


def surprisals(model: Any, prefix: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """What the Hugging Face model says of `tokens` behind `prefix`, nats."""
    with torch.inference_mode():
        logps = model(torch.tensor([[*prefix, *tokens]])).logits[0].log_softmax(-1)
    return [-float(logps[len(prefix) - 1 + place, token]) for place, token in enumerate(tokens)]


def assert_scored_by(model: Any, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]] = ROWS) -> None:
    """Every draw, kept or erased, has the model's surprisals behind its own prefix."""
    for prompt, one in zip(prompts, rollouts, strict=True):
        assert one.surprisals == pytest.approx(surprisals(model, prompt, one.tokens), abs=1e-3)
        for draw in one.draws:
            expected = surprisals(model, [*prompt, *one.tokens[: draw.start]], draw.tokens)
            assert draw.surprisals == pytest.approx(expected, abs=1e-3)


def test_draws_have_the_surprisals_of_the_model(engine: VllmRollouts, model: Any) -> None:
    rollouts = sample(engine, [policy_of("scheduled")] * 8)
    assert_scored_by(model, rollouts)
    for one in rollouts:
        assert one.totals.erased_tokens == sum(len(draw.tokens) for draw in one.draws if not draw.kept) > 0
        assert [draw.attempt for draw in one.draws if draw.segment % 2 == 0] == [0, 1] * (
            (one.totals.segments + 1) // 2
        )
        assert all(draw.kept for draw in one.draws if draw.segment % 2 == 1)


@pytest.mark.parametrize("name", POLICIES)
def test_the_torch_engine_makes_the_same_of_the_same_tokens(
    engine: VllmRollouts, model: Any, boundaries: bytes, name: str, kind: dict[str, bool]
) -> None:
    """Scores, thresholds, reasons, limits, totals and counts: all of a rollout, from the same draws."""
    policy = policy_of(name)
    profile = Profile(mean=(2.0, 3.0), std=(0.5,) * 2)
    ours = sample(engine, [policy] * 8, profile=profile)
    forced = [[t for draw in one.draws for t in draw.tokens] if one.draws else list(one.tokens) for one in ours]
    theirs = rollout(
        model, ROWS, policy, max_tokens=MAX_TOKENS, eos_ids=[EOS], boundaries=boundaries, profile=profile, forced=forced
    )
    assert {one.finish for one in ours} == {"stop", "length"}
    assert {draw.limit for one in ours for draw in one.draws} - {None} == LIMITS.get(name, set())
    assert any(one.totals.erasures for one in ours) == (name not in ("shadow", "off"))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.tokens, one.finish, one.totals) == (other.tokens, other.finish, other.totals)
        in_vain = one.totals.erasures if kind["in_flight"] else 0
        assert 0 <= one.forward_tokens - other.forward_tokens <= in_vain
        assert one.surprisals == pytest.approx(other.surprisals, abs=1e-3)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
        for draw, same in zip(one.draws, other.draws, strict=True):
            for field in ("segment", "attempt", "start", "tokens", "temperature", "kept", "reason", "limit"):
                assert getattr(draw, field) == getattr(same, field)
            assert draw.logprobs == pytest.approx(same.logprobs, abs=1e-3)
            assert draw.threshold == pytest.approx(same.threshold, abs=1e-3)
            for part in ("u", "mean", "max", "slope"):
                assert getattr(draw.uncertainty, part) == pytest.approx(getattr(same.uncertainty, part), abs=1e-3)


def test_shadow_rows_are_scored_beside_those_that_erase(engine: VllmRollouts) -> None:
    on, shadow = policy_of("scheduled"), policy_of("shadow")
    rollouts = sample(engine, [on, on, shadow, shadow] * 2)
    assert [one.totals.erasures > 0 for one in rollouts] == [True, True, False, False] * 2
    for one in rollouts[2:4]:
        assert [token for draw in one.draws for token in draw.tokens] == list(one.tokens)
        assert {draw.reason for draw in one.draws if draw.segment % 2 == 0} == {"schedule"}


def test_a_seed_repeats_its_responses_and_another_gives_others(engine: VllmRollouts) -> None:
    policies = [policy_of("scheduled"), policy_of("scheduled"), policy_of("shadow"), policy_of("off")] * 2
    first = sample(engine, policies)
    assert sample(engine, policies) == first
    assert [one.tokens for one in sample(engine, policies, seed=4000)] != [one.tokens for one in first]
    assert len({one.tokens for one in first}) == len(first)


def test_rows_of_a_group_share_their_statistics(engine: VllmRollouts) -> None:
    policy = HealingPolicy().updated({"segment": {"tokens": 6}, "threshold": {"group_weight": 1.0}, "mode": "shadow"})
    together = sample(engine, [policy] * 8)
    apart = sample(engine, [policy] * 8, groups=range(8))
    assert [one.tokens for one in together] == [one.tokens for one in apart]
    thresholds = [[[draw.threshold for draw in one.draws] for one in rows] for rows in (together, apart)]
    assert thresholds[0] != thresholds[1]


def test_rows_that_may_erase_are_asked_for_first_and_come_back_in_their_places(engine: VllmRollouts) -> None:
    policies = [policy_of("off"), policy_of("scheduled")] * 4
    with patch.object(engine._llm, "generate", wraps=engine._llm.generate) as generate:
        rollouts = sample(engine, policies)
    asked = [params.extra_args["healing"]["mode"] for params in generate.call_args.args[1]]
    assert asked == sorted(asked, reverse=True)
    assert [one.totals.erasures > 0 for one in rollouts] == [False, True] * 4


def test_a_new_profile_moves_the_thresholds(engine: VllmRollouts) -> None:
    first = [
        sample(engine, [policy_of("shadow")] * 8, profile=profile)[0].draws[0].threshold
        for profile in (None, Profile(mean=(9.0,), std=(0.0,)), None)
    ]
    assert first == [pytest.approx(1.4 + 1.5 * 0.6), pytest.approx(9.0), first[0]]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_new_weights_are_sampled_from(engine: VllmRollouts, kind: dict[str, bool]) -> None:
    """With prompts longer than a block of the cache: KV of the old weights must not be used."""
    prompts = [prompt * 12 for prompt in PROMPTS[:1]] * 8
    other = tiny_model(1, kind["tied"])
    before = sample(engine, [policy_of("scheduled")] * 8, prompts)
    engine.load_weights(other)
    after = sample(engine, [policy_of("scheduled")] * 8, prompts)
    assert_scored_by(other, after, prompts)
    assert [one.tokens for one in after] != [one.tokens for one in before]


def test_adapters_are_merged_and_taken_out_again_to_the_bit(engine: VllmRollouts, model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), config)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    engine.load_weights(adapted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
    rollouts = sample(engine, [policy_of("scheduled")] * 8)
    assert_scored_by(adapted, rollouts)
    with pytest.raises(AssertionError):
        assert_scored_by(model, rollouts)


# --- training ---------------------------------------------------------------------------------------------------------


def count_of_ones(completions: list[str], **_: Any) -> list[float]:
    return [text.count("1") + 0.1 * text.count("2") for text in completions]


def test_the_trainer_steps_on_its_rollouts(
    engine: VllmRollouts, kind: dict[str, bool], settings: dict[str, Any]
) -> None:
    """Samples of both steps have the surprisals of the weights they were sampled with: the engine follows them."""
    trained = tiny_model(2, kind["tied"])
    seen: list[Any] = []

    class Watched(VllmRollouts):
        def __init__(self) -> None: ...

        def load_weights(self, model: Any) -> None:
            engine.load_weights(model)

        def sample(self, prompts: Any, policies: Any, **options: Any) -> list[Rollout]:
            rollouts = engine.sample(prompts, policies, **options)
            assert_scored_by(trained, rollouts, prompts)
            seen.append((trained.lm_head.weight.detach().clone(), rollouts))
            return rollouts

    data = Dataset.from_dict({"prompt": [f"{a}+{b}" for a in range(4) for b in range(4)]})
    trainer = E3RLTrainer(
        trained,
        [count_of_ones],
        E3RLConfig(**settings),
        train_dataset=data,
        processing_class=make_tokenizer(),
        make_rollouts=lambda _: Watched(),
    )
    trainer.train()
    assert not torch.equal(seen[0][0], seen[-1][0])
    assert [one.totals.erasures > 0 for one in seen[0][1]] == [True, True, False, False] * 2
    assert 0 < next(r["e3rl/erased_share"] for r in trainer.state.log_history if "e3rl/erased_share" in r) < 1


# --- what is refused --------------------------------------------------------------------------------------------------


def test_another_temperature_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"training\.temperature: is 0\.7.*rollout_engine: torch"):
        VllmRollouts("nowhere", temperature=0.7, top_p=1.0, eos_ids=[EOS])


def test_one_engine_over_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    with pytest.raises(RecipeError, match=r"vllm_settings\.tensor_parallel_size: is 2, .* 4 training processes"):
        VllmRollouts("nowhere", temperature=1.0, top_p=1.0, eos_ids=[EOS], tensor_parallel_size=2)


def test_an_unknown_engine_setting_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"training\.vllm_settings: .*max_modle_len"):
        VllmRollouts("nowhere", temperature=1.0, top_p=1.0, eos_ids=[EOS], max_modle_len=64)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"uncertainty": {"signal": "entropy"}}, "uncertainty.signal"),
        ({"scope": "reasoning"}, "scope"),
        ({"keep": "best"}, "keep"),
        ({"retry": {"temperature": 0.7}}, "retry.temperature"),
    ],
)
def test_what_the_engine_does_not_report_is_refused(engine: VllmRollouts, settings: dict[str, Any], name: str) -> None:
    with pytest.raises(PolicyError, match=rf"training\.healing\.{name}"):
        sample(engine, [HealingPolicy().updated(settings)] * 8)


def test_too_little_room_is_refused(engine: VllmRollouts) -> None:
    with pytest.raises(RecipeError, match=r"max_model_len: is 64, a prompt of 4 tokens and a response of 61"):
        sample(engine, [policy_of("shadow")] * 8, max_tokens=61)
