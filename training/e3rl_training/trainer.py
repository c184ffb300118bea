"""`E3RLTrainer`: TRL's GRPO trainer with erasable rollouts, and advantages that know which draw they belong to.

Of TRL it touches what `TOUCHED` lists, and no more: it hands in a `rollout_func`, and post-processes what
`_generate_and_score_completions` returns. Losses, optimisers, devices, ranks and logging stay TRL's.

One generation batch:
  1. sample: each group's first rows erase, the others (`plain_fraction`) are only scored
  2. TRL scores the committed responses and computes their advantages (F8)
  3. a share of the erased draws is continued to the end and scored, too: how good was the erase rule?
  4. credit (F9-F10): rows of kept tokens, further rows of erased draws, each with its sampling-time logprobs (F11)
  5. the calibrator sees all draws of all ranks: the threshold follows the model
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.utils import gather_object
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer
from trl.data_utils import is_conversational

from e3rl_core.calibration import Calibrator
from e3rl_core.engines.torch_rollout import Rollout
from e3rl_core.errors import CheckpointError
from e3rl_core.policy import HealingPolicy
from e3rl_core.segmentation import boundary_table
from e3rl_training import continuation
from e3rl_training.attention import segment_mass
from e3rl_training.config import E3RLConfig
from e3rl_training.continuation import Continuation
from e3rl_training.measures import Measures
from e3rl_training.rollouts import Rollouts, TorchRollouts
from e3rl_training.rows import Row, collate, continued_row, fill, response_rows, split_rows
from e3rl_training.sharding import refuse_unshardable

#: Written last: a checkpoint folder with it is whole.
STATE_NAME = "e3rl_state.json"
#: Checkpoints are written in here and then moved beside it.
UNFINISHED = ".unfinished"

#: What of TRL's trainer is overridden or used beyond its documentation; tests/training/test_trl_contract.py holds it.
TOUCHED: Final = (
    "_calculate_rewards",
    "_generate_and_score_completions",
    "_get_output_dir",
    "_load_optimizer_and_scheduler",
    "_metrics",
    "_save_checkpoint",
    "_tokenize_prompts",
    "_tokenizer",
    "compute_loss",
    "eos_token_ids",
    "is_deepspeed_enabled",
    "is_fsdp_enabled",
    "mask_truncated_completions",
    "max_completion_length",
    "num_generations",
    "num_generations_eval",
    "reward_funcs",
    "reward_weights",
    "scale_rewards",
)

#: A first reward below this calls a response wrong, in the erase rule's precision.
_RIGHT = 0.5


@dataclass(frozen=True, slots=True)
class _Batch:
    """One generation batch of this rank, as sampled."""

    prompts: list[list[int]]
    rollouts: list[Rollout]
    plain: list[bool]
    """Which rows erased nothing by configuration."""
    seed: int


class E3RLTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose rollouts erase. Takes what `GRPOTrainer` takes, with an `E3RLConfig`.

    `make_rollouts(trainer)` may bring an engine of its own; by default the model being trained samples.

    Raises:
        RecipeError: the model would be sharded over ranks, and something asks for it whole.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: E3RLConfig,
        *,
        make_rollouts: Callable[[E3RLTrainer], Rollouts] | None = None,
        **kwargs: Any,
    ) -> None:
        self.calibrator = Calibrator(decay=args.calibration_decay)
        self._policy = args.healing_policy()
        self._shadow = self._policy.model_copy(update={"mode": "shadow"})  # plain, but scored: credit wants segments
        self._credit = args.credit_rule()
        self._generations = 0
        self._sampled_with = -1
        self._writing = False
        self._batch: _Batch | None = None
        self._rewards: torch.Tensor | None = None
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, rollout_func=_roll, **kwargs)
        refuse_unshardable(self)
        self.rollouts = (make_rollouts or _torch_rollouts)(self)

    # --- sampling -----------------------------------------------------------------------------------------------------

    def roll(self, prompts: list[Any]) -> dict[str, Any]:
        """Sample one response per prompt; what TRL wants of a `rollout_func`."""
        ids = [list(tokens) for tokens in self._tokenize_prompts(prompts)[0]]
        training = self.model.training
        group_size = self.num_generations if training else self.num_generations_eval
        places = [self.accelerator.process_index * len(prompts) + row for row in range(len(prompts))]
        plain = [not training or self._is_plain(place % group_size, group_size) for place in places]
        seed = self._seed(places[0])
        policies = [self._shadow if alone else self._policy for alone in plain]
        rollouts = self._sample(ids, policies, [place // group_size for place in places], seed)
        self._batch = _Batch(ids, rollouts, plain, seed)
        return {
            "prompt_ids": ids,
            "completion_ids": [list(rollout.tokens) for rollout in rollouts],
            "logprobs": [list(rollout.logprobs) for rollout in rollouts],
        }

    def _is_plain(self, place: int, group_size: int) -> bool:
        """The last rows of a group erase nothing."""
        return bool(place >= group_size - round(self.args.plain_fraction * group_size))

    def _seed(self, place: int) -> int:
        """No two rows of a run share a random stream, and a resumed run goes on with the next."""
        return int((self.args.seed * 1_000_003 + self._generations) * 1_000_003 + place)

    def _sample(
        self, prompts: Sequence[Sequence[int]], policies: Sequence[HealingPolicy], groups: Sequence[int], seed: int
    ) -> list[Rollout]:
        if self._sampled_with != self.state.global_step:
            self.rollouts.load_weights(self.accelerator.unwrap_model(self.model))
            self._sampled_with = self.state.global_step
        profile = self.calibrator.profile()
        return self.rollouts.sample(
            prompts, policies, groups=groups, max_tokens=self.max_completion_length, profile=profile, seed=seed
        )

    # --- credit -------------------------------------------------------------------------------------------------------

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._rewards = super()._calculate_rewards(*args, **kwargs)  # all ranks' rows: (_B, reward functions)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        batch, self._batch = self._batch, None
        assert batch is not None
        self._generations += 1
        if not training:
            return output
        advantages = output["advantages"].tolist()
        rows = self._credited(batch, advantages)
        continued = self._continue(batch)
        rewards = self._continued_rewards(inputs, batch, continued)
        if self.args.continued_credit:
            rows += self._continued_rows(batch, continued, rewards)
        self._report(batch, continued, rewards)
        self._calibrate(batch)
        collated = collate(self._even(rows), self._tokenizer.pad_token_id, self.accelerator.device)
        if "ref_per_token_logps" in output:
            collated["ref_per_token_logps"] = _reference(output["ref_per_token_logps"], collated)
        # What a plain trainer would count: a kept token weighs the same whatever was erased beside it.
        collated["num_items_in_batch"] = output["num_items_in_batch"]
        return collated

    def _credited(self, batch: _Batch, advantages: Sequence[float]) -> list[Row]:
        """Rows of the committed responses, in order, then those of erased draws."""
        whole: list[Row] = []
        further: list[Row] = []
        for row, rollout in enumerate(batch.rollouts):
            truncated = self.mask_truncated_completions and rollout.finish == "length"
            advantage = 0.0 if truncated else advantages[row]
            rule = self._credit.model_copy(update={"plain_weight": self._credit.plain_weight and not batch.plain[row]})
            segments = sum(draw.kept for draw in rollout.draws)
            rates = [self.calibrator.erase_rates(index, self._policy.max_erasures) for index in range(segments)]
            mass = self._mass(batch.prompts[row], rollout) if advantage else [1.0] * segments
            made = response_rows(batch.prompts[row], rollout, advantage, rule, erase_rates=rates, mass=mass)
            whole.append(made[0])
            further += made[1:]
        return whole + further

    def _mass(self, prompt: Sequence[int], rollout: Rollout) -> list[float] | None:
        if self._credit.allocation != "attention":
            return None
        lengths = [len(draw.tokens) for draw in rollout.draws if draw.kept]
        return segment_mass(self.accelerator.unwrap_model(self.model), prompt, lengths, rollout.tokens)

    def _even(self, rows: list[Row]) -> list[Row]:
        """As many rows on every rank, and a multiple of the slices TRL cuts a batch into.

        So every rank takes a slice in as many parts: a sharded model's passes need all ranks at once.
        """
        count = torch.tensor([len(rows)], device=self.accelerator.device)
        most = int(self.accelerator.gather(count).max())
        slices = self.args.steps_per_generation
        return fill(rows, -(-most // slices) * slices)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's loss, of at most `per_device_train_batch_size` rows at once: erased draws cost time, not memory.

        All parts but the last are taken backward here. What is returned has the value of the whole loss and the
        gradient of the last part: the loss is a sum over tokens, so the gradients add up to the whole one's.
        """
        *parts, last = split_rows(inputs, self.args.per_device_train_batch_size if self.model.training else None)
        before = 0.0
        for part in parts:
            loss = super().compute_loss(model, part)
            self.accelerator.backward(loss)
            before += loss.detach()
        whole: torch.Tensor = super().compute_loss(model, last) + before
        return whole

    # --- continued draws ----------------------------------------------------------------------------------------------

    def _continue(self, batch: _Batch) -> list[Continuation]:
        seed = batch.seed + 500_009
        chosen = continuation.choose(batch.rollouts, self.args.continue_fraction, seed)
        return continuation.finish(
            chosen,
            batch.prompts,
            batch.rollouts,
            sample=lambda contexts: self._sample(contexts, [self._shadow] * len(contexts), range(len(contexts)), seed),
            max_tokens=self.max_completion_length,
            eos_ids=self.eos_token_ids,
        )

    def _continued_rewards(
        self, inputs: list[dict[str, Any]], batch: _Batch, continued: Sequence[Continuation]
    ) -> torch.Tensor:
        """(continued, reward functions); nan where a function would not say."""
        rewards = torch.full((len(continued), len(self.reward_funcs)), torch.nan)
        if not continued:
            return rewards
        examples = [inputs[one.row] for one in continued]
        ids = [one.completion(batch.rollouts[one.row]) for one in continued]
        texts: list[Any] = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        if is_conversational(inputs[0]):
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {key: [example[key] for example in examples] for key in examples[0] if key != "prompt"}
        prompts = [example["prompt"] for example in examples]
        for place, function in enumerate(self.reward_funcs):
            given = function(prompts=prompts, completions=texts, completion_ids=ids, **columns)
            rewards[:, place] = torch.tensor([torch.nan if value is None else value for value in given])
        return rewards

    def _continued_rows(self, batch: _Batch, continued: Sequence[Continuation], rewards: torch.Tensor) -> list[Row]:
        """F8 with the group's own mean (and std): the continuation is a further sibling, counted in neither."""
        assert self._rewards is not None
        weights = self.reward_weights.cpu()
        groups = (self._rewards.cpu() * weights).nansum(1).view(-1, self.num_generations)
        first = self.accelerator.process_index * len(batch.rollouts)
        rows = []
        for one, reward in zip(continued, (rewards * weights).nansum(1).tolist(), strict=True):
            group = groups[(first + one.row) // self.num_generations]
            scale = 1.0 if self.scale_rewards == "none" else float(group.std()) + 1e-4
            advantage = (reward - float(group.mean())) / scale
            rows.append(continued_row(batch.prompts[one.row], batch.rollouts[one.row], one, advantage))
        return [row for row in rows if row.teaches]

    # --- what is learned about uncertainty, and what is logged --------------------------------------------------------

    def _calibrate(self, batch: _Batch) -> None:
        """Every rank sees every rank's draws, in rank order: their calibrators stay the same."""
        mine = [
            (draw.segment, draw.attempt, draw.uncertainty.u, draw.reason is not None)
            for rollout in batch.rollouts
            for draw in rollout.draws
        ]
        self.calibrator.age()
        for draw in gather_object(mine):
            self.calibrator.see(*draw)

    def _report(self, batch: _Batch, continued: Sequence[Continuation], rewards: torch.Tensor) -> None:
        assert self._rewards is not None
        first = self.accelerator.process_index * len(batch.rollouts)
        own = self._rewards[first : first + len(batch.rollouts), 0].tolist()
        measures = Measures.of(
            batch.rollouts,
            batch.plain,
            own,
            rewards[:, 0].tolist(),
            continuing=sum(one.drawn for one in continued),
            right=_RIGHT,
        )
        sums = torch.tensor(measures.sums(), dtype=torch.float64, device=self.accelerator.device)
        total = self.accelerator.gather(sums.unsqueeze(0)).sum(0).tolist()
        for name, value in Measures.from_sums(total).metrics().items():
            self._metrics["train"][f"e3rl/{name}"].append(value)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        folder = str(super()._get_output_dir(trial=trial))
        return os.path.join(folder, UNFINISHED) if self._writing else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write aside, then rename: a killed run leaves no half checkpoint."""
        folder = Path(self._get_output_dir(trial))
        self._writing = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            whole = folder / UNFINISHED / name
            state = {"generations": self._generations, "calibrator": self.calibrator.model_dump()}
            (whole / STATE_NAME).write_text(json.dumps(state), "utf-8")
            os.replace(whole, folder / name)
            shutil.rmtree(whole.parent, ignore_errors=True)  # with what an earlier, killed run left in it
            rotate_checkpoints(output_dir=str(folder), save_total_limit=self.args.save_total_limit, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            path = Path(checkpoint) / STATE_NAME
            try:
                state = json.loads(path.read_text("utf-8"))
                self.calibrator = Calibrator.model_validate(state["calibrator"])
                self._generations = int(state["generations"])
            except (OSError, ValueError, KeyError) as error:
                raise CheckpointError(f"checkpoint {checkpoint}: {STATE_NAME} cannot be read ({error})") from None


def _roll(prompts: list[Any], trainer: E3RLTrainer) -> dict[str, Any]:
    return trainer.roll(prompts)


def _torch_rollouts(trainer: E3RLTrainer) -> Rollouts:
    args, tokenizer = trainer.args, trainer._tokenizer
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return TorchRollouts(
        trainer.accelerator.unwrap_model(trainer.model),
        temperature=args.temperature,
        top_p=args.top_p,
        eos_ids=trainer.eos_token_ids,
        boundaries=boundary_table(texts),
        batch=args.rollout_batch,
    )


def _reference(kept: torch.Tensor, collated: dict[str, torch.Tensor]) -> torch.Tensor:
    """F12: KL is for kept tokens; a further row is compared with the policy that sampled it, where the slope is 0."""
    reference = collated["old_per_token_logps"].clone()
    reference[: kept.shape[0], : kept.shape[1]] = kept
    return reference
