"""Where rollouts come from: one interface, and the engine that samples with the very model being trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from e3rl_core.engines.torch_rollout import Rollout, rollout
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile


class Rollouts(Protocol):
    """Samples responses that may erase. One call is one generation batch; the same seed gives the same responses."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        policies: Sequence[HealingPolicy],
        *,
        groups: Sequence[int],
        max_tokens: int,
        profile: Profile | None,
        seed: int,
    ) -> list[Rollout]:
        """One response per prompt, (_B,); rows with one group id share their statistics (F4)."""
        ...

    def load_weights(self, model: Any) -> None:
        """Sample from this model from now on."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


class TorchRollouts:
    """Rollouts of the model being trained, at most `batch` responses at once."""

    def __init__(
        self,
        model: Any,
        *,
        temperature: float,
        top_p: float,
        eos_ids: Sequence[int],
        boundaries: bytes | None,
        batch: int,
    ) -> None:
        self.load_weights(model)
        self._settings: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "eos_ids": eos_ids,
            "boundaries": boundaries,
        }
        self._batch = batch

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        policies: Sequence[HealingPolicy],
        *,
        groups: Sequence[int],
        max_tokens: int,
        profile: Profile | None,
        seed: int,
    ) -> list[Rollout]:
        return rollout(
            self._model,
            prompts,
            policies,
            max_tokens=max_tokens,
            profile=profile,
            groups=groups,
            seed=seed,
            seats=self._batch,
            **self._settings,
        )

    def load_weights(self, model: Any) -> None:
        # Under PEFT's wrapper is the model itself, with the adapters in its layers.
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model

    def close(self) -> None:
        """Nothing to give back: the model is the trainer's."""
