"""One rank of a run of a recipe in two processes: rank 0 erases as the recipe says, rank 1 hardly ever.

Whatever samples, every rollout is held against the whole model of that moment. Writes what the rank ends with.
`--resume` goes on from a checkpoint; with `--stop` rank 1, and it alone, is told to stop after two steps.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import sys
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState

from e3rl_training import run
from e3rl_training.recipe import Recipe
from e3rl_training.sharding import gathered
from e3rl_training.trainer import E3RLTrainer


def let_cpus_shard() -> None:
    """torch shards on CPUs, accelerate does not: it drops the FSDP settings there. All else is as on GPUs."""
    init = AcceleratorState.__init__

    def keep_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = keep_fsdp


def weights(trainer: E3RLTrainer) -> dict[str, torch.Tensor]:
    state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return {name: gathered(tensor).detach().clone() for name, tensor in state.items()}


def checksum(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for _, value in sorted(state.items()):
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def surprisals(model: Any, prompt: list[int], tokens: tuple[int, ...]) -> list[float]:
    with torch.inference_mode():
        logps = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
    return [-float(logps[len(prompt) - 1 + place, token]) for place, token in enumerate(tokens)]


class Watched(E3RLTrainer):
    """Counts rows and erasures, and sees that samples are of the current weights."""

    last: Watched
    stop = False

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self.whole = copy.deepcopy(model)
        super().__init__(model, *args, **kwargs)
        if self.accelerator.process_index == 1:
            self._policy = self._policy.updated({"schedule": [1, 0, 0, 0]})
        self.seen = {"rows": 0, "erasures": 0, "sharded": self.accelerator.is_fsdp2}
        self.before = checksum(self.whole.state_dict())
        Watched.last = self

    def roll(self, prompts: list[Any]) -> dict[str, Any]:
        if self.stop and self.accelerator.process_index == 1 and self.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        self.whole.load_state_dict(weights(self))
        rolled = super().roll(prompts)
        assert self._batch is not None
        for prompt, rollout in zip(self._batch.prompts, self._batch.rollouts, strict=True):
            assert rollout.surprisals == pytest.approx(surprisals(self.whole, prompt, rollout.tokens), abs=1e-3)
            self.seen["erasures"] += rollout.totals.erasures
        return rolled

    def _credited(self, *args: Any) -> list[Any]:
        rows = super()._credited(*args)
        self.seen["rows"] += len(rows)
        return rows


def main(recipe: str, *flags: str) -> None:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        let_cpus_shard()
    Watched.stop = "--stop" in flags
    run.E3RLTrainer = Watched  # type: ignore[misc]
    outcome = run.train(Recipe.load(recipe), resume="--resume" in flags)
    trainer = Watched.last
    ended = {
        **trainer.seen,
        "before": trainer.before,
        "parameters": checksum(weights(trainer)),
        "calibrator": trainer.calibrator.model_dump(),
    }
    (outcome.folder / f"rank{trainer.accelerator.process_index}.json").write_text(json.dumps(ended), "utf-8")
    trainer.accelerator.state.destroy_process_group()  # as `e3rl train` does


if __name__ == "__main__":
    main(*sys.argv[1:])
