"""A real language model takes a real step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from e3rl_core.embedded.model import embedded_model
from e3rl_training.config import E3RLConfig
from e3rl_training.rewards import RewardSpec, reward_functions
from e3rl_training.trainer import E3RLTrainer
from e3rl_training.warmup import FineTune, fine_tune


@pytest.mark.slow
def test_one_step_of_smollm2(tmp_path: Path) -> None:
    folder = embedded_model()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items() if "layers.0." in name}
    args = E3RLConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=24,
        max_steps=1,
        learning_rate=1e-5,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        healing={"segment": {"tokens": 8}, "schedule": [1]},
    )
    question = [{"role": "user", "content": "What is 7 times 8?"}]
    trainer = E3RLTrainer(
        model,
        # A letter that about half of all answers begin with: a reward that varies within a group.
        reward_functions([RewardSpec(name="format", pattern="[A-T7].{1,60}[aeiou ].*")]),
        args,
        train_dataset=Dataset.from_list([{"prompt": question, "answer": "56"}] * 4),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    record = next(log for log in trainer.state.log_history if "e3rl/drawn_tokens" in log)
    assert record["e3rl/erased_share"] > 0
    assert record["e3rl/drawn_tokens"] > 4 * 24
    if record["frac_reward_zero_std"] < 1:
        assert any(not value.equal(before[name]) for name, value in model.state_dict().items() if name in before)


@pytest.mark.slow
def test_smollm2_is_taught_by_solutions() -> None:
    """The first update is at learning rate 0."""
    model, tokenizer = fine_tune(FineTune(updates=3, batch=2, learning_rate=1e-3), seed=0)
    before = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.bfloat16).state_dict()
    after = model.state_dict()
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert any(not value.equal(before[name]) for name, value in after.items())
    assert tokenizer.eos_token_id == 2
