"""The trainer: what a step samples, what it trains on, and what it leaves in a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from e3rl_core.credit import CreditRule
from e3rl_core.errors import CheckpointError
from e3rl_training.config import E3RLConfig
from e3rl_training.trainer import STATE_NAME, UNFINISHED, E3RLTrainer

PROMPTS = [f"{a}+{b}>" for a in range(4) for b in range(4)]


def count_of_ones(completions: list[str], **_: Any) -> list[float]:
    """A reward that varies within every group."""
    return [text.count("1") + 0.1 * text.count("2") for text in completions]


def trainer_of(model: Any, tokenizer: Any, settings: dict[str, Any], **over: Any) -> E3RLTrainer:
    data = Dataset.from_dict({"prompt": PROMPTS, "answer": ["0"] * len(PROMPTS)})
    return E3RLTrainer(
        model, [count_of_ones], E3RLConfig(**{**settings, **over}), train_dataset=data, processing_class=tokenizer
    )


def batch_of(trainer: E3RLTrainer) -> tuple[dict[str, Any], list[Any]]:
    """One generation batch: what goes to the loss, and the rollouts it was made of."""
    rollouts: list[Any] = []
    sample = trainer._sample

    def spy(*args: Any) -> list[Any]:
        rollouts.append(sample(*args))
        return rollouts[-1]

    trainer._sample = spy  # type: ignore[method-assign]
    trainer.model.train()
    inputs = [{"prompt": prompt, "answer": "0"} for prompt in PROMPTS[:2] for _ in range(4)]
    return trainer._generate_and_score_completions(inputs), rollouts


def test_half_of_each_group_erases(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    _, rollouts = batch_of(trainer_of(model, tokenizer, settings))
    erasures = [rollout.totals.erasures > 0 for rollout in rollouts[0]]
    assert erasures == [True, True, False, False] * 2


def test_every_draw_is_scored_behind_its_own_prefix(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    """F11: on policy, the loss's log-probability of each token in it is the one it was sampled with."""
    trainer = trainer_of(model, tokenizer, settings, credit={"mode": "unbiased"})
    batch, _ = batch_of(trainer)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attended = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    with torch.no_grad():
        logps, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attended, width)
    in_loss = (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert in_loss.sum() > 0
    assert logps[in_loss] == pytest.approx(batch["old_per_token_logps"][in_loss], abs=1e-4)


def test_unbiased_trains_on_every_drawn_token(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    batch, rollouts = batch_of(trainer_of(model, tokenizer, settings, credit={"mode": "unbiased"}))
    totals = [rollout.totals for rollout in rollouts[0]]
    in_loss = int((batch["completion_mask"] * batch["tool_mask"]).sum())
    assert in_loss == sum(total.committed_tokens + total.erased_tokens for total in totals)


def test_kept_only_trains_on_no_erased_token(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    batch, rollouts = batch_of(trainer_of(model, tokenizer, settings, credit={"mode": "kept_only"}))
    assert batch["completion_ids"].shape[0] == len(rollouts[0])
    assert int((batch["completion_mask"] * batch["tool_mask"]).sum()) == sum(
        rollout.totals.committed_tokens for rollout in rollouts[0]
    )


def test_continued_draws_are_trained_on_when_asked(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    over = {"credit": {"mode": "kept_only"}, "continued_credit": True}
    batch, rollouts = batch_of(trainer_of(model, tokenizer, settings, **over))
    erasures = sum(rollout.totals.erasures for rollout in rollouts[0])
    assert erasures > 0
    assert batch["completion_ids"].shape[0] == len(rollouts[0]) + erasures


def test_the_loss_is_the_one_computed_by_hand(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    """(B, T) advantages: - sum over tokens in the loss of ratio * advantage, over what a plain trainer would count."""
    trainer = trainer_of(model, tokenizer, settings, credit={"mode": "contrastive", "alpha": 0.5})
    batch, rollouts = batch_of(trainer)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(trainer.model, batch)
    mask = batch["completion_mask"] * batch["tool_mask"]
    by_hand = -(batch["advantages"] * mask).sum() / sum(rollout.totals.committed_tokens for rollout in rollouts[0])
    assert float(loss) == pytest.approx(float(by_hand), abs=1e-5)
    assert abs(float(by_hand)) > 1e-4


def test_parts_add_up_to_the_whole_gradient(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    trainer = trainer_of(model, tokenizer, settings, credit={"mode": "unbiased"})
    batch, _ = batch_of(trainer)
    trainer.current_gradient_accumulation_steps = 1
    found = []
    for rows in (5, len(batch["completion_ids"])):
        trainer.args.per_device_train_batch_size = rows
        model.zero_grad()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        found.append((float(loss), model.lm_head.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)
    assert found[1][1].abs().max() > 1e-4


def test_rows_fill_the_slices_of_gradient_accumulation(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    over = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "credit": {"mode": "unbiased"}}
    trainer = trainer_of(model, tokenizer, settings, **over)
    batch, rollouts = batch_of(trainer)
    assert batch["completion_ids"].shape[0] % 2 == 0
    totals = [rollout.totals for rollout in rollouts[0]]
    in_loss = int((batch["completion_mask"] * batch["tool_mask"]).sum())
    assert in_loss == sum(total.committed_tokens + total.erased_tokens for total in totals)


@pytest.mark.parametrize(
    "credit",
    [{"mode": m} for m in ("unbiased", "contrastive", "kept_only")]
    + [
        {"mode": "kept_only", "plain_weight": True},
        {"mode": "unbiased", "allocation": "uncertainty"},
    ],
)
def test_every_mode_takes_a_step(model: Any, tokenizer: Any, settings: dict[str, Any], credit: dict[str, Any]) -> None:
    before = model.lm_head.weight.detach().clone()
    trainer_of(model, tokenizer, settings, credit=credit).train()
    assert not torch.equal(model.lm_head.weight, before)


def test_attention_allocation(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    model.set_attn_implementation("eager")
    trainer = trainer_of(model, tokenizer, settings, credit={"mode": "kept_only", "allocation": "attention"})
    batch, rollouts = batch_of(trainer)
    row = next(i for i in range(8) if abs(float(batch["advantages"][i, 0])) > 1e-3)
    tokens = len(rollouts[0][row].tokens)
    values = batch["advantages"][row, :tokens]
    assert len(set(values.tolist())) > 1
    plain = trainer_of(model, tokenizer, settings, credit={"mode": "kept_only"})
    assert float(values.mean()) == pytest.approx(float(batch_of(plain)[0]["advantages"][row, :tokens].mean()), abs=1e-4)


def test_what_is_logged(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    trainer = trainer_of(model, tokenizer, settings)
    trainer.train()
    record = next(record for record in trainer.state.log_history if "e3rl/erased_share" in record)
    assert 0 < record["e3rl/erased_share"] < 1
    assert record["e3rl/erase_precision"] is not None
    assert record["e3rl/plain_reward"] is not None


def test_the_threshold_follows_the_model(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    trainer = trainer_of(model, tokenizer, settings)
    trainer.train()
    profile = trainer.calibrator.profile()
    assert profile is not None
    assert len(profile.mean) == 4
    assert profile.mean[0] == pytest.approx(3.4, abs=0.8)  # 18 tokens, almost uniform: log 18, and F3's extra terms


def test_a_resumed_run_is_the_run_that_was_not_interrupted(
    model: Any, tokenizer: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    start = {name: value.clone() for name, value in model.state_dict().items()}
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer_of(model, tokenizer, settings, **saving, output_dir=str(tmp_path / "whole"))
    whole.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(start)
    resumed = trainer_of(model, tokenizer, settings, **saving, output_dir=str(tmp_path / "resumed"))
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert resumed.calibrator == whole.calibrator
    rewards = [[r["reward"] for r in t.state.log_history if "reward" in r] for t in (whole, resumed)]
    assert rewards[0] == rewards[1]


def test_a_checkpoint_is_whole_or_not_there(
    model: Any, tokenizer: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(model, tokenizer, settings, save_strategy="steps", save_steps=1)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(trainer, "_save_rng_state", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.train()
    folder = Path(settings["output_dir"])
    assert (folder / UNFINISHED / "checkpoint-1").exists()
    assert not list(folder.glob("checkpoint-*"))


def test_what_a_killed_run_left_is_cleared_away(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    half = Path(settings["output_dir"]) / UNFINISHED / "checkpoint-7"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    trainer_of(model, tokenizer, settings, save_strategy="steps", save_steps=1).train()
    assert (Path(settings["output_dir"]) / "checkpoint-2" / STATE_NAME).exists()
    assert not half.exists()


def test_a_checkpoint_without_state_is_refused(model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    trainer = trainer_of(model, tokenizer, settings, save_strategy="steps", save_steps=1)
    trainer.train()
    checkpoint = Path(settings["output_dir"]) / "checkpoint-1"
    assert "calibrator" in json.loads((checkpoint / STATE_NAME).read_text("utf-8"))
    (checkpoint / STATE_NAME).write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match=STATE_NAME):
        trainer_of(model, tokenizer, settings).train(resume_from_checkpoint=str(checkpoint))


def test_the_rule_is_the_configured_one(settings: dict[str, Any]) -> None:
    rule = E3RLConfig(**settings, credit='{"mode": "contrastive", "alpha": 0.1}').credit_rule()
    assert rule == CreditRule(mode="contrastive", alpha=0.1)
