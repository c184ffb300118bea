"""One arm from one starting policy with one seed, in a process of its own: so its memory is its own.

python -m benchmarks.training.one_run ARM POLICY SEED TOKENS STEPS FILE
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.training.arms import SEGMENT, settings
from e3rl_core.engines.torch_rollout import Rollout
from e3rl_core.paths import cache_folder
from e3rl_training.config import E3RLConfig
from e3rl_training.modchain import Problem, problems, solved
from e3rl_training.rollouts import Rollouts, TorchRollouts
from e3rl_training.trainer import E3RLTrainer
from e3rl_training.warmup import sampled_accuracy, starting_policy

#: Fresh problems, of another seed than any that is trained on.
EVALUATED = 500
#: Accuracy is measured so often over the budget.
POINTS = 8
_EVALUATION_SEED = 10_000


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
    labels: Labels = field(default_factory=Labels)

    def sample(self, prompts: Sequence[Sequence[int]], policies: Sequence[Any], **more: Any) -> list[Rollout]:
        drawn = self.inner.sample(prompts, policies, **more)
        for prompt, policy, rollout in zip(prompts, policies, drawn, strict=True):
            asked = self._text(prompt)
            if policy.mode == "on" and asked.endswith(">"):  # what is continued begins in mid-response
                self.labels.see(Problem.parse(asked), rollout, self._text)
        return drawn

    def load_weights(self, model: Any) -> None:
        self.inner.load_weights(model)

    def close(self) -> None:
        self.inner.close()

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


class Budget(TrainerCallback):  # type: ignore[misc]
    """Ends a run when its tokens are drawn, and measures accuracy on the way."""

    def __init__(self, tokens: int, asked: Sequence[Problem]) -> None:
        self.tokens = tokens
        self.asked = asked
        self.drawn = 0.0
        self.seconds = 0.0
        self.points: list[dict[str, float]] = []
        self.records: list[dict[str, float]] = []
        self._trainer: E3RLTrainer | None = None
        self._since = 0.0

    def attach(self, trainer: E3RLTrainer) -> None:
        self._trainer = trainer
        trainer.add_callback(self)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._measure()
        self._since = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "e3rl/drawn_tokens" not in logs:
            return
        self.drawn += logs["e3rl/drawn_tokens"]
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
        assert self._trainer is not None
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        sampled = sampled_accuracy(model, self.asked, temperature=1.0, seed=len(self.points))
        self.points.append({"tokens": self.drawn, "sampled": sampled})


def exact(completions: Sequence[str], prompts: Sequence[str], **_: Any) -> list[float]:
    """The reward: 1 for the right answer."""
    return [float(solved(Problem.parse(asked), text)) for asked, text in zip(prompts, completions, strict=True)]


def run(arm: str, policy: str, seed: int, tokens: int, steps: int) -> dict[str, Any]:
    """Train until `tokens` are drawn, erased and continued ones included; `steps` is the length of a chain."""
    start = starting_policy(policy, cache_folder() / "policies", seed)
    tokenizer, model = AutoTokenizer.from_pretrained(start), AutoModelForCausalLM.from_pretrained(start)
    config = settings(arm)
    most = tokens // (config["per_device_train_batch_size"] * SEGMENT * 2) + 10
    asked = problems(8192, steps=steps, seed=seed)
    fresh = problems(EVALUATED, steps=steps, seed=_EVALUATION_SEED)
    begun = time.monotonic()
    with TemporaryDirectory() as folder:
        args = E3RLConfig(**config, output_dir=folder, seed=seed, max_steps=most, max_completion_length=steps * SEGMENT)
        graded: list[Graded] = []

        def make(trainer: E3RLTrainer) -> Graded:
            inner = TorchRollouts(
                trainer.accelerator.unwrap_model(trainer.model),
                temperature=args.temperature,
                top_p=args.top_p,
                eos_ids=trainer.eos_token_ids,
                boundaries=None,
                batch=args.rollout_batch,
            )
            graded.append(Graded(inner, tokenizer))
            return graded[0]

        data = Dataset.from_list([{"prompt": one.prompt} for one in asked])
        trainer = E3RLTrainer(model, [exact], args, train_dataset=data, processing_class=tokenizer, make_rollouts=make)
        budget = Budget(tokens, fresh)
        budget.attach(trainer)
        trainer.train()
    greedy = sampled_accuracy(model, fresh, temperature=0.0, seed=0)
    return {
        "arm": arm,
        "policy": policy,
        "seed": seed,
        "steps": steps,
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


def _mean(records: Sequence[dict[str, float]], name: str) -> float | None:
    values = [record[name] for record in records if name in record]
    return sum(values) / len(values) if values else None


if __name__ == "__main__":
    arm, policy, seed, tokens, steps, target = sys.argv[1:]
    result = run(arm, policy, int(seed), int(tokens), int(steps))
    Path(target).write_text(json.dumps(result) + "\n", "utf-8")
