"""The calibration profile: what is normal for a model, learned from traffic or training, saved beside its weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from e3rl_core.errors import PolicyError, ProfileError, first_complaint
from e3rl_core.policy import HealingPolicy
from e3rl_core.threshold import Moments

PROFILE_NAME = "healing_profile.json"

#: The prior where no profile is at hand, nats [ours]: a 135M instruct model at temperature 0.7 on grade-school
#: mathematics. U follows temperature more than anything else, so a calibrated profile beats this at any other.
DEFAULT_PRIOR = Moments(mean=1.4, std=0.6)


#: Settings that decide what U means.
_SCORING = ("segment", "uncertainty")


class Spread(BaseModel):
    """How one figure is distributed over draws, nats."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean: float
    std: float
    quantiles: dict[str, float] = Field(description="By the share of draws at or below, as text: 0.5 is the median.")


class SegmentStatistics(BaseModel):
    """The draws seen at one segment index: U and its parts (F3)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    draws: int
    u: Spread
    mean: Spread
    max: Spread
    slope: Spread


class Profile(BaseModel):
    """Moments of U by segment index, and the settings they were learned under."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal[1, 2] = Field(2, description="2 added `statistics`.")
    model: str | None = Field(None, description="Fingerprint of the model it was learned on; see `fingerprint`.")
    mean: tuple[float, ...] = Field(
        min_length=1, description="Mean of U at segment 0, 1, ..; the last one repeats. Nats."
    )
    std: tuple[float, ...] = Field(min_length=1, description="Standard deviation of U, likewise. Nats.")
    segments: int = Field(0, ge=0, description="How many segments were seen.")
    statistics: tuple[SegmentStatistics, ...] = Field(
        (), description="What was seen at segment 0, 1, .., not smoothed as mean and std are; for the reader."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Healing settings it was learned under, and suggests."
    )
    provenance: dict[str, Any] = Field(default_factory=dict, description="Data, date and versions; for the reader.")

    @model_validator(mode="after")
    def _paired(self) -> Profile:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} entries, std has {len(self.std)}")
        if min(self.std) < 0 or min(self.mean) < 0:
            raise ValueError("mean and std cannot be negative")
        return self

    def prior(self, segment: int) -> Moments:
        """Moments expected at this segment index."""
        index = min(segment, len(self.mean) - 1)
        return Moments(self.mean[index], self.std[index])

    def policy(self, base: HealingPolicy) -> HealingPolicy:
        """`base` with this profile's suggested settings laid over it; the mode stays the base's."""
        return base.updated({**self.settings, "mode": base.mode}, where="profile.settings")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Read a profile.

        Raises:
            ProfileError: the file is missing, is not JSON, has unknown or impossible values.
        """
        try:
            profile = cls.model_validate(json.loads(Path(path).read_text("utf-8")))
            profile.policy(HealingPolicy())
        except OSError as error:
            raise ProfileError(f"profile {path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise ProfileError(f"profile {path}: {first_complaint(error, 'file')}") from None
        except PolicyError as error:
            raise ProfileError(f"profile {path}: {error}") from None
        except (ValueError, RecursionError):
            raise ProfileError(f"profile {path}: is not JSON") from None
        return profile

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write atomically: a reader sees the old file or the new one, never half of either."""
        target = Path(path)
        half = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            half.write_text(self.model_dump_json(indent=2) + "\n", "utf-8")
            os.replace(half, target)
        finally:
            half.unlink(missing_ok=True)

    def check_fits(self, model_fingerprint: str, path: str | os.PathLike[str]) -> None:
        """Refuse a profile learned on another model; one without a fingerprint fits any.

        Raises:
            ProfileError: the fingerprints differ.
        """
        if self.model is not None and self.model != model_fingerprint:
            raise ProfileError(
                f"profile {path}: was learned on model {self.model}, this model is {model_fingerprint}; "
                "calibrate it anew or pass the profile of this model"
            )

    def check_scores_alike(self, policy: HealingPolicy, path: str | os.PathLike[str]) -> None:
        """Refuse a policy that cuts or scores segments otherwise than this profile's: its U is another quantity.

        Raises:
            ProfileError: naming the first setting that differs.
        """
        learned = self.policy(policy)
        for name in _SCORING:
            theirs, ours = getattr(learned, name), getattr(policy, name)
            for field in type(ours).model_fields:
                if getattr(theirs, field) != getattr(ours, field):
                    raise ProfileError(
                        f"profile {path}: was learned with {name}.{field} {getattr(theirs, field)}, this deployment "
                        f"asks for {getattr(ours, field)}, which makes another U: leave the setting out or calibrate "
                        "with it"
                    )


def fingerprint(config: dict[str, Any]) -> str:
    """A short name of a model's architecture out of its `config.json`: enough to tell a foreign profile."""
    keys = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    return "-".join(str(config.get(key, "?")) for key in keys)


class Defaults(BaseModel):
    """What applies to a request that says nothing: the deployment's policy and the profile it scores against."""

    model_config = ConfigDict(frozen=True)

    policy: HealingPolicy
    profile: Profile | None

    @classmethod
    def resolve(cls, settings: dict[str, Any]) -> Defaults:
        """Layer a deployment's settings: preset, then the calibration profile, then explicit settings.

        Args:
            settings: `profile` (a path) and any field of `HealingPolicy`; `mode` unset means ``on`` with a profile
                and ``shadow`` without one.

        Raises:
            PolicyError, ProfileError: a setting or the profile is wrong, or they do not go together.
        """
        settings = dict(settings)
        path = settings.pop("profile", None)
        if not isinstance(path, str | os.PathLike | None):
            raise PolicyError("healing.profile", f"is of type {type(path).__name__}, use the path of a profile file")
        profile = Profile.load(path) if path else None
        preset = settings.pop("preset", None)
        mode = settings.pop("mode", None) or ("on" if profile else "shadow")
        base = HealingPolicy().updated({"preset": "responsive" if preset is None else preset, "mode": mode})
        if profile is None or path is None:
            return cls(policy=base.updated({"mode": mode, **settings}), profile=None)
        policy = profile.policy(base).updated({"mode": mode, **settings})
        profile.check_scores_alike(policy, path)
        if preset is not None:  # one that is named shall not be without effect
            profile.check_scores_alike(policy.model_copy(update={"segment": base.segment}), path)
        return cls(policy=policy, profile=profile)
