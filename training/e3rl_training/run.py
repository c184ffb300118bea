"""One training run, from a recipe to an exported checkpoint; what can fail without a GPU fails before one is used.

The order: recipe, rewards, data, model, trainer; then train, export, report.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from e3rl_core.engines.torch_rollout import rollout
from e3rl_core.errors import CheckpointError, RecipeError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import fingerprint
from e3rl_training import callbacks, data, difficulty, models, report
from e3rl_training.config import E3RLConfig
from e3rl_training.export import export, model_card, profile_of, provenance
from e3rl_training.recipe import Recipe, typed
from e3rl_training.rewards import reward_functions
from e3rl_training.rollouts import Rollouts
from e3rl_training.sharding import whole_model
from e3rl_training.trainer import STATE_NAME, E3RLTrainer

FINAL = "final"
LOG = "log.jsonl"

#: What a dry run changes: one small step on the CPU in which every response erases.
_DRY_PROBLEMS = 16
_DRY_TRAINING: dict[str, Any] = {
    "max_steps": 1,
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": None,
    "generation_batch_size": None,
    "max_completion_length": 24,
    "rollout_engine": "torch",
    "use_cpu": True,
    "bf16": False,
    "fsdp": None,
    "fsdp_config": None,
    "deepspeed": None,
    "save_strategy": "no",
    "report_to": "none",
}
_DRY_HEALING = {"segment": {"tokens": 6}, "schedule": [1, 0], "max_erasures": 1}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    finished: bool
    """False where it was interrupted; a checkpoint to resume from is there then."""
    folder: Path
    steps: int


def train(recipe: Recipe, *, resume: bool = False, command: str = "e3rl train") -> Outcome:
    """Run a recipe to its end, or until it is interrupted.

    Raises:
        TrainingError: something is wrong with the recipe, the data, a reward or the checkpoint to resume from.
    """
    begun = time.monotonic()
    args = _config(recipe, recipe.output)
    rewards = reward_functions(recipe.rewards)
    problems = data.load(recipe.data)
    checkpoint = _checkpoint(recipe, args.seed, resume)
    model, tokenizer = models.load(recipe.model, args.seed)
    recipe.output.mkdir(parents=True, exist_ok=True)
    if recipe.difficulty is not None:
        problems = _solvable(recipe, args, model, tokenizer, problems, rewards[0])
    trainer = _trainer(recipe, args, model, tokenizer, problems, rewards)
    interrupt = callbacks.Interrupt()
    log = callbacks.JsonLines(recipe.output / LOG)
    for callback in (callbacks.Progress(), log, interrupt):
        trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        trainer.rollouts.close()
        for reward in rewards:
            reward.close()
    if trainer.state.global_step < trainer.state.max_steps:
        return Outcome(False, recipe.output, trainer.state.global_step)
    trained = whole_model(trainer, getattr(torch, recipe.model.dtype))
    if trainer.accelerator.is_main_process:
        _conclude(recipe, trainer, trained, log.path, time.monotonic() - begun, command)
    return Outcome(True, recipe.output, trainer.state.global_step)


def dry_run(recipe: Recipe) -> dict[str, Any]:
    """One step with two random layers of the recipe's architecture on generated problems: needs no Hub and no GPU.

    The recipe's own settings are resolved and checked first; the step then runs a small version of them.

    Raises:
        TrainingError: as `train`, as far as it can be known without the Hub.
    """
    args = _config(recipe, recipe.output)
    rewards = reward_functions(recipe.rewards)
    if recipe.data.path is not None:
        data.load(recipe.data)
    model, tokenizer = models.stand_in(recipe.model)
    problems = data.load(data.DataSpec(name="modchain", limit=_DRY_PROBLEMS))
    healing = {**(recipe.training.get("healing") or {}), **_DRY_HEALING}
    with TemporaryDirectory(prefix="e3rl-dry-") as folder:
        small = recipe.model_copy(update={"training": {**recipe.training, **_DRY_TRAINING, "healing": healing}})
        trainer = _trainer(small, _config(small, Path(folder)), model, tokenizer, problems, rewards)
        result = trainer.train()
    return {
        "model_type": model.config.model_type,
        "steps": trainer.state.global_step,
        "loss": result.training_loss,
        "responses_per_step": args.generation_batch_size,
        "tokens_per_response": args.max_completion_length,
        "healing": args.healing_policy().model_dump(mode="json"),
        "credit": args.credit_rule().model_dump(mode="json"),
    }


def _config(recipe: Recipe, output: Path) -> E3RLConfig:
    settings: dict[str, Any] = {"report_to": ["tensorboard"], "logging_steps": 1, "disable_tqdm": True}
    if not torch.cuda.is_available():
        settings |= {"bf16": False, "use_cpu": True}
    try:
        return E3RLConfig(**{**settings, **typed(recipe.training), "output_dir": str(output)})
    except ValueError as error:  # TRL's and transformers' own checks
        raise RecipeError(f"training: {str(error).strip().splitlines()[0]}") from None


def _trainer(
    recipe: Recipe, args: E3RLConfig, model: Any, tokenizer: Any, problems: Dataset, rewards: list[Any]
) -> E3RLTrainer:
    args.reward_weights = [spec.weight for spec in recipe.rewards]
    trainer = E3RLTrainer(
        model,
        rewards,
        args,
        train_dataset=problems,
        processing_class=tokenizer,
        peft_config=_lora(recipe),
        make_rollouts=_vllm_rollouts(recipe, args) if args.rollout_engine == "vllm" else None,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _lora(recipe: Recipe) -> Any:
    spec = recipe.model.lora
    if spec is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.target_modules,
        task_type="CAUSAL_LM",
    )


def _vllm_rollouts(recipe: Recipe, args: E3RLConfig) -> Callable[[E3RLTrainer], Rollouts]:
    def make(trainer: E3RLTrainer) -> Rollouts:
        from e3rl_training.vllm_rollouts import VllmRollouts  # imports vLLM

        return VllmRollouts(
            models.locate(recipe.model, args.seed),
            temperature=args.temperature,
            top_p=args.top_p,
            eos_ids=trainer.eos_token_ids,
            # vLLM's own default would sample a float32 checkpoint in bfloat16.
            **{"dtype": recipe.model.dtype, **args.engine_settings()},
        )

    return make


def _checkpoint(recipe: Recipe, seed: int, resume: bool) -> str | None:
    """The checkpoint to go on from.

    Raises:
        CheckpointError: the folder holds a run and `--resume` was not said; or the checkpoint is of another model.
    """
    last: str | None = get_last_checkpoint(str(recipe.output)) if recipe.output.is_dir() else None
    if not resume:
        if last is not None:
            raise CheckpointError(
                f"output: {recipe.output} holds checkpoints of an earlier run; say --resume to go on with it, or name "
                "another folder with --set output=FOLDER"
            )
        return None
    if last is None:
        raise CheckpointError(f"--resume: there is no checkpoint in {recipe.output}; start without it")
    if not (Path(last) / STATE_NAME).is_file():
        raise CheckpointError(f"--resume: {last} has no {STATE_NAME}: it was not written by e3rl train")
    if recipe.model.lora is None:
        theirs = fingerprint(json.loads((Path(last) / "config.json").read_text("utf-8")))
        ours = fingerprint(models.config(recipe.model, seed))
        if theirs != ours:
            raise CheckpointError(f"--resume: {last} is of model {theirs}, the recipe's model is {ours}")
    return last


def _solvable(recipe: Recipe, args: E3RLConfig, model: Any, tokenizer: Any, problems: Dataset, reward: Any) -> Dataset:
    """The problems of the recipe's difficulty."""
    spec = recipe.difficulty
    assert spec is not None
    stream = count()

    def mean_rewards(examples: list[dict[str, Any]]) -> list[float]:
        prompts = [models.prompt_ids(tokenizer, example["prompt"]) for example in examples]
        sampled = rollout(
            model.to("cuda" if torch.cuda.is_available() else "cpu"),
            prompts,
            HealingPolicy(mode="off"),
            max_tokens=args.max_completion_length,
            temperature=args.temperature,
            eos_ids=[tokenizer.eos_token_id],
            seed=args.seed + next(stream) * len(prompts),
        )
        texts = tokenizer.batch_decode([one.tokens for one in sampled], skip_special_tokens=True)
        columns = {key: [example[key] for example in examples] for key in examples[0] if key != "prompt"}
        given = reward(prompts=[example["prompt"] for example in examples], completions=texts, **columns)
        return [value or 0.0 for value in given]

    rates = difficulty.solve_rates(problems.to_list(), spec.samples, mean_rewards)
    kept = difficulty.within(rates, spec.low, spec.high)
    sys.stderr.write(f"difficulty: {len(kept)} of {len(rates)} problems stay\n")
    return problems.select(kept)


def _conclude(recipe: Recipe, trainer: E3RLTrainer, model: Any, log: Path, seconds: float, command: str) -> None:
    """Export the checkpoint, write the report, draw the curves."""
    records = callbacks.read(log)
    last = report.headline(records)
    if recipe.model.lora is not None:
        model = model.merge_and_unload()
    policy = trainer.args.healing_policy()
    origin = provenance(
        model=Path(recipe.model.name).name,
        data=recipe.data.title,
        steps=trainer.state.global_step,
        temperature=trainer.args.temperature,  # U depends on it more than on anything else
    )
    profile = profile_of(trainer.calibrator, policy, model.config.to_dict(), origin)
    card = model_card(
        base=recipe.model.name, data=recipe.data.title, steps=trainer.state.global_step, last=last, command=command
    )
    export(model, trainer.processing_class, profile, card, recipe.output / FINAL)
    report.draw(records, recipe.output / "curves.png")
    facts = {"steps": trainer.state.global_step, "seconds": round(seconds, 1), "last": last, "provenance": origin}
    report.write(recipe.output, {**facts, "recipe": recipe.model_dump(mode="json"), "command": command})
