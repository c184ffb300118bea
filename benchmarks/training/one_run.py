"""One arm from one starting policy with one seed, in a process of its own: so its memory is its own.

python -m benchmarks.training.one_run ARM POLICY SEED TOKENS STEPS FILE CHECKPOINT
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.training.arms import ANNEALED, settings
from e3rl_core.engines.torch_rollout import Rollout
from e3rl_core.paths import cache_folder
from e3rl_core.policy import HealingPolicy
from e3rl_training.config import E3RLConfig
from e3rl_training.export import export, model_card, profile_of, provenance
from e3rl_training.rollouts import Rollouts, TorchRollouts
from e3rl_training.tasks import TASKS, Problem, accuracy, solved
from e3rl_training.trainer import E3RLTrainer
from e3rl_training.warmup import POLICIES, sampled_accuracy, starting_policy

#: Fresh problems, of another seed than any that is trained on.
EVALUATED = 500
#: Every arm's accuracy is that of sampling at this temperature, whatever it draws its rollouts at.
_EVALUATED_AT = 1.0
#: Accuracy is measured so often over the budget.
POINTS = 8
_EVALUATION_SEED = 10_000
#: Tokens of a response, on average, at least: bounds the updates that a budget can take.
_SHORTEST = 12
#: How a task's model is loaded; on CPUs eager attention trains a real model fastest.
_LOADED = {"modchain": {}, "wordproblems": {"attn_implementation": "eager"}}


@dataclass
class Labels:
    """How the erase rule's verdicts on first draws compare with what is right."""

    wrong_erased: int = 0
    wrong_kept: int = 0
    right_erased: int = 0
    right_kept: int = 0

    def see(self, problem: Problem, rollout: Rollout, text: Any) -> None:
        for draw in rollout.draws:
            if draw.attempt == 0:
                right = problem.right(draw.segment, text(rollout.tokens[: draw.start]), text(draw.tokens))
                name = f"{'right' if right else 'wrong'}_{'erased' if not draw.kept else 'kept'}"
                setattr(self, name, getattr(self, name) + 1)

    def rates(self) -> dict[str, float | None]:
        erased, wrong = self.wrong_erased + self.right_erased, self.wrong_erased + self.wrong_kept
        return {
            "erase_precision": self.wrong_erased / erased if erased else None,
            "erase_recall": self.wrong_erased / wrong if wrong and erased else None,
        }


@dataclass
class Graded:
    """Rollouts that are graded as they are drawn."""

    inner: Rollouts
    tokenizer: Any
    problems: dict[tuple[int, ...], Problem]
    """By the tokens of their prompts."""
    labels: Labels = field(default_factory=Labels)

    def sample(self, prompts: Sequence[Sequence[int]], policies: Sequence[Any], **more: Any) -> list[Rollout]:
        drawn = self.inner.sample(prompts, policies, **more)
        for prompt, policy, rollout in zip(prompts, policies, drawn, strict=True):
            if policy.mode == "on":
                self.labels.see(self.problems[tuple(prompt)], rollout, self._text)
        return drawn

    def load_weights(self, model: Any) -> None:
        self.inner.load_weights(model)

    def close(self) -> None:
        self.inner.close()

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


class Budget(TrainerCallback):  # type: ignore[misc]
    """Ends a run when its tokens are drawn, anneals what is to be annealed, and measures accuracy on the way."""

    def __init__(self, tokens: int, evaluate: Callable[[int], float], *, anneal: bool) -> None:
        self.tokens = tokens
        self.anneal = anneal
        self.evaluate = evaluate
        """Accuracy, sampled with a seed."""
        self.drawn = 0.0
        self.seconds = 0.0
        self.points: list[dict[str, float]] = []
        self.records: list[dict[str, float]] = []
        self._since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._measure()
        self._since = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "e3rl/drawn_tokens" not in logs:
            return
        self.drawn += logs["e3rl/drawn_tokens"]
        if self.anneal:
            args.plain_fraction = min(1.0, self.drawn / self.tokens)
        names = ("reward", "frac_reward_zero_std", "e3rl/erased_share", "e3rl/healed_reward", "e3rl/plain_reward")
        self.records.append({name: logs[name] for name in names if name in logs and logs[name] == logs[name]})
        over = self.drawn >= self.tokens
        if over or self.drawn >= self.tokens * len(self.points) / POINTS:
            self.seconds += time.monotonic() - self._since
            self._measure()
            self._since = time.monotonic()
        if over:
            control.should_training_stop = True

    def _measure(self) -> None:
        self.points.append({"tokens": self.drawn, "sampled": self.evaluate(len(self.points))})


@dataclass(frozen=True)
class Run:
    """What is to be run."""

    arm: str
    policy: str
    seed: int
    tokens: int
    """To draw, erased and continued ones included."""
    steps: int
    """Of a problem."""


def run(one: Run, checkpoint: Path) -> dict[str, Any]:
    """Train until the tokens are drawn; leave the last checkpoint with its profile."""
    name = POLICIES[one.policy].task
    task, config = TASKS[name], settings(one.arm, name)
    start = starting_policy(one.policy, cache_folder() / "policies", one.seed, steps=one.steps)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, **_LOADED[name])
    asked = task.problems(8192, steps=one.steps, seed=one.seed)
    fresh = task.problems(EVALUATED, steps=one.steps, seed=_EVALUATION_SEED)
    by_prompt = {problem.prompt: problem for problem in asked}
    room = task.tokens(one.steps)

    def reward(completions: Sequence[str], prompts: Sequence[str], **_: Any) -> list[float]:
        return [float(solved(by_prompt[prompt], text)) for prompt, text in zip(prompts, completions, strict=True)]

    def sampled(seed: int) -> float:
        engine.load_weights(trainer.accelerator.unwrap_model(trainer.model))
        asked_ids = [tokenizer(problem.prompt)["input_ids"] for problem in fresh]
        plain = [HealingPolicy(mode="off")] * len(fresh)
        drawn = engine.sample(asked_ids, plain, groups=range(len(fresh)), max_tokens=room, profile=None, seed=seed)
        return accuracy(fresh, tokenizer.batch_decode([one.tokens for one in drawn], skip_special_tokens=True))

    begun = time.monotonic()
    with TemporaryDirectory() as folder:
        args = E3RLConfig(**config, output_dir=folder, seed=one.seed, max_completion_length=room)
        args.max_steps = one.tokens // (args.generation_batch_size * _SHORTEST) + 10
        graded: list[Graded] = []

        def make(trainer: E3RLTrainer) -> Graded:
            found = {tuple(tokenizer(prompt)["input_ids"]): problem for prompt, problem in by_prompt.items()}
            graded.append(Graded(_engine(trainer, start, trainer.args.temperature), tokenizer, found))
            return graded[0]

        data = Dataset.from_list([{"prompt": problem.prompt} for problem in asked])
        trainer = E3RLTrainer(model, [reward], args, train_dataset=data, processing_class=tokenizer, make_rollouts=make)
        as_trained = args.temperature == _EVALUATED_AT
        engine = trainer.rollouts if as_trained else _engine(trainer, start, _EVALUATED_AT)
        budget = Budget(one.tokens, sampled, anneal=one.arm in ANNEALED)
        trainer.add_callback(budget)
        trainer.train()
    trainer.rollouts.close()
    if not as_trained:
        engine.close()
    final = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if args.bf16:
        final = final.to(torch.bfloat16)
    greedy = sampled_accuracy(final, tokenizer, fresh, max_tokens=room, temperature=0.0, seed=0)
    _export(one, trainer, final, checkpoint, {"sampled": budget.points[-1]["sampled"], "greedy": greedy})
    return {
        **asdict(one),
        "tokens": budget.drawn,
        "updates": trainer.state.global_step,
        "points": budget.points,
        "sampled": budget.points[-1]["sampled"],
        "gain": budget.points[-1]["sampled"] - budget.points[0]["sampled"],
        "greedy": greedy,
        **graded[0].labels.rates(),
        "zero_variance": _mean(budget.records, "frac_reward_zero_std"),
        "erased_share": _mean(budget.records, "e3rl/erased_share"),
        "training_seconds": round(budget.seconds, 1),
        "seconds": round(time.monotonic() - begun, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "threads": torch.get_num_threads(),
    }


def _engine(trainer: E3RLTrainer, start: Path, temperature: float) -> Rollouts:
    args = trainer.args
    common = {"temperature": temperature, "top_p": args.top_p, "eos_ids": trainer.eos_token_ids}
    if args.rollout_engine == "vllm":
        from e3rl_training.vllm_rollouts import VllmRollouts  # imports vLLM

        return VllmRollouts(str(start), **common, **args.engine_settings())
    model = trainer.accelerator.unwrap_model(trainer.model)
    return TorchRollouts(model, **common, boundaries=None, batch=args.rollout_batch)


def _export(one: Run, trainer: E3RLTrainer, model: Any, folder: Path, found: dict[str, float]) -> None:
    data, steps = POLICIES[one.policy].task, trainer.state.global_step
    origin = provenance(model=one.policy, data=data, steps=steps)
    profile = profile_of(trainer.calibrator, trainer.args.healing_policy(), model.config.to_dict(), origin)
    command = f"python -m benchmarks.training.one_run {one.arm} {one.policy} {one.seed} {one.tokens} {one.steps}"
    card = model_card(base=one.policy, data=data, steps=steps, last=found, command=command)
    export(model, trainer.processing_class, profile, card, folder)


def _mean(records: Sequence[dict[str, float]], name: str) -> float | None:
    values = [record[name] for record in records if name in record]
    return sum(values) / len(values) if values else None


if __name__ == "__main__":
    arm, policy, seed, tokens, steps, target, checkpoint = sys.argv[1:]
    result = run(Run(arm, policy, int(seed), int(tokens), int(steps)), Path(checkpoint))
    Path(target).write_text(json.dumps(result) + "\n", "utf-8")
