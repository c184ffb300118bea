"""What erasing did in one generation batch, as sums that add up over ranks, and as the metrics made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from e3rl_core.engines.torch_rollout import Rollout


@dataclass(slots=True)
class Measures:
    """Sums over responses, draws and tokens."""

    committed: float = 0.0
    """Tokens."""
    erased: float = 0.0
    """Tokens."""
    continuing: float = 0.0
    """Tokens drawn to continue erased draws."""
    erasures: float = 0.0
    forced: float = 0.0
    """Segments kept because no retry was left."""
    segments: float = 0.0
    u: float = 0.0
    """Sum over kept segments, nats."""
    threshold: float = 0.0
    """Sum over kept segments, nats."""
    healed: float = 0.0
    """Responses that were allowed to erase."""
    healed_reward: float = 0.0
    plain: float = 0.0
    plain_reward: float = 0.0
    continued: float = 0.0
    """Erased draws that were continued to the end."""
    continued_wrong: float = 0.0

    @classmethod
    def of(
        cls,
        rollouts: Sequence[Rollout],
        plain: Sequence[bool],
        rewards: Sequence[float],
        continued: Sequence[float],
        *,
        continuing: int,
        right: float,
    ) -> Measures:
        """Sums of one rank's batch.

        Args:
            rollouts: (_B,).
            plain: (_B,) whether a response was to erase nothing.
            rewards: (_B,) the first reward function's; nan is left out.
            continued: the same of each continued draw.
            continuing: tokens drawn to continue them.
            right: the reward from which a continued draw counts as right.
        """
        sums = cls(continuing=continuing)
        for rollout, alone, reward in zip(rollouts, plain, rewards, strict=True):
            sums._add(rollout)
            if math.isnan(reward):
                continue
            if alone:
                sums.plain += 1
                sums.plain_reward += reward
            else:
                sums.healed += 1
                sums.healed_reward += reward
        known = [reward for reward in continued if not math.isnan(reward)]
        sums.continued = len(known)
        sums.continued_wrong = sum(reward < right for reward in known)
        return sums

    def _add(self, rollout: Rollout) -> None:
        self.committed += rollout.totals.committed_tokens
        self.erased += rollout.totals.erased_tokens
        self.erasures += rollout.totals.erasures
        for draw in rollout.draws:
            if draw.kept:
                self.segments += 1
                self.u += draw.uncertainty.u
                self.threshold += draw.threshold
                self.forced += draw.limit is not None

    def sums(self) -> list[float]:
        """What adds up over ranks."""
        return list(astuple(self))

    @classmethod
    def from_sums(cls, sums: Sequence[float]) -> Measures:
        return cls(*sums)

    def metrics(self) -> dict[str, float]:
        """Means and shares; nan where there is nothing to take them of (TRL leaves nan out of its averages)."""
        return {
            "drawn_tokens": self.committed + self.erased + self.continuing,
            "erased_share": _ratio(self.erased, self.committed + self.erased),
            "erasures_per_response": _ratio(self.erasures, self.healed),
            "forced_share": _ratio(self.forced, self.segments),
            "uncertainty": _ratio(self.u, self.segments),
            "threshold": _ratio(self.threshold, self.segments),
            "healed_reward": _ratio(self.healed_reward, self.healed),
            "plain_reward": _ratio(self.plain_reward, self.plain),
            "erase_precision": _ratio(self.continued_wrong, self.continued),
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
