"""The settings of healing: typed, bounded, documented, and layered (preset < profile < request).

Standing of a setting: [paper] the abstract says it, [reported] a secondary digest says it, [ours] our choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from e3rl_core.errors import PolicyError

Mode = Literal["off", "shadow", "on"]
PresetName = Literal["paper", "responsive"]

#: What redraws of a greedy request sample at when nothing says otherwise: a greedy redraw would repeat itself [ours].
GREEDY_RETRY_TEMPERATURE = 0.7


class _Settings(BaseModel):
    # Strict: `true` is not one erasure, and `"3"` is not a number.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class SegmentRule(_Settings):
    """Where a segment ends. Lengths in tokens."""

    unit: Literal["tokens", "sentence", "line"] = Field(
        "sentence",
        description="Boundary to end at: a fixed length, a sentence end (a line end counts), or a line end.",
    )
    min_tokens: int = Field(24, ge=1, le=8192, description="No boundary ends a segment shorter than this.")
    max_tokens: int = Field(96, ge=1, le=8192, description="A segment ends here even without a boundary.")

    @model_validator(mode="before")
    @classmethod
    def _fixed_length(cls, data: Any) -> Any:
        """`tokens: N` is shorthand for a fixed length, so that a client can say just that."""
        if not isinstance(data, Mapping) or "tokens" not in data:
            return data
        for key, value in data.items():
            if key != "tokens" and (key, value) != ("unit", "tokens"):
                raise ValueError(f"'tokens' fixes the length, it cannot be combined with {key} {value!r}")
        return {"unit": "tokens", "min_tokens": data["tokens"], "max_tokens": data["tokens"]}

    @model_validator(mode="after")
    def _ordered(self) -> SegmentRule:
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class UncertaintyWeights(_Settings):
    """F1-F3: how token surprisals become one number per segment."""

    signal: Literal["surprisal", "entropy"] = Field(
        "surprisal",
        description="F1: cross-entropy of the sampled token [paper]; predictive entropy needs the torch engine.",
    )
    smoothing: float = Field(0.5, ge=0.0, lt=1.0, description="F2: rho of the running mean [reported window].")
    mean: float = Field(1.0, ge=0.0, le=100.0, description="F3: weight of the segment's mean [ours].")
    max: float = Field(0.25, ge=0.0, le=100.0, description="F3: weight of its highest smoothed value [ours].")
    rise: float = Field(0.25, ge=0.0, le=100.0, description="F3: weight of the rise over the segment before [ours].")


class ThresholdRule(_Settings):
    """F4-F5: what counts as too uncertain, here and now. Values in nats unless said otherwise."""

    k: float = Field(1.5, ge=-10.0, le=1e9, description="F4: standard deviations above the baseline's mean.")
    gamma: float = Field(
        1.25, gt=1.0, le=100.0, description="F5: growth per erasure at one checkpoint; > 1 ends the loop."
    )
    eta: float = Field(0.5, ge=0.0, le=4.0, description="F5: exponent of the modulation by this response's history.")
    floor: float = Field(0.3, ge=0.0, le=1e9, description="F5: no threshold is lower than this [ours].")
    group_weight: float = Field(
        0.5, ge=0.0, le=1.0, description="F4: g, the siblings' share in the baseline [reported]."
    )
    decay: float = Field(0.9, gt=0.0, le=1.0, description="F4: weight of each older segment in the own history [ours].")
    prior_segments: float = Field(
        4.0, gt=0.0, le=1e6, description="F4: n0, pseudo-segments the profile counts for [ours]."
    )


class Budget(_Settings):
    """F6: what one response may spend on erasing; null means no bound."""

    erased_tokens: int | None = Field(None, ge=0, description="Erased tokens in total.")
    erased_fraction: float | None = Field(
        0.5, ge=0.0, le=1.0, description="Erased tokens over all drawn tokens, the redraw to come included."
    )
    deadline_ms: int | None = Field(None, ge=0, description="No erasure later than this after arrival, milliseconds.")


class Retry(_Settings):
    """F7: how a redraw differs from the draw it replaces."""

    temperature: float | None = Field(
        None,
        ge=0.0,
        le=2.0,
        description="Sampling temperature of redraws; null: the request's own, or 0.7 where that is 0.",
    )

    def temperature_for(self, request_temperature: float) -> float:
        """The temperature a redraw samples at, given the request's own."""
        if self.temperature is not None:
            return self.temperature
        return request_temperature if request_temperature > 0 else GREEDY_RETRY_TEMPERATURE


class HealingPolicy(_Settings):
    """Everything that decides what is erased and what a client gets to see of it."""

    mode: Mode = Field("on", description="off; shadow: score, erase nothing; on: erase and redraw.")
    preset: PresetName = Field("responsive", description="The set of values that unset fields come from.")
    segment: SegmentRule = SegmentRule()
    uncertainty: UncertaintyWeights = UncertaintyWeights()
    threshold: ThresholdRule = ThresholdRule()
    max_erasures: int = Field(5, ge=0, le=64, description="F6: erasures at one checkpoint [reported: 5].")
    budget: Budget = Budget()
    retry: Retry = Retry()
    erase_from: Literal["segment", "onset"] = Field(
        "segment",
        description="Erase the whole segment, or from its first token with a smoothed surprisal above the threshold: "
        "what stands before it becomes a segment of its own, and stays [ours].",
    )
    keep: Literal["last", "best"] = Field("last", description="F7: which draw stays when the cap is reached.")
    scope: Literal["all", "reasoning"] = Field("all", description="Heal the whole answer, or its reasoning only.")
    stream: Literal["committed", "live"] = Field(
        "committed", description="live: provisional text and erasures as events."
    )
    return_erased: bool = Field(False, description="Records also hold the erased draws' token ids and logprobs.")
    schedule: tuple[int, ...] | None = Field(
        None,
        strict=False,  # JSON has lists, not tuples; the entries stay strict
        min_length=1,
        max_length=4096,
        description="Erasures per segment by schedule instead of by threshold, repeated cyclically: an ablation.",
    )

    @model_validator(mode="after")
    def _workable(self) -> HealingPolicy:
        if self.schedule is not None and min(self.schedule) < 0:
            raise ValueError("schedule holds a negative number of erasures")
        return self

    @classmethod
    def from_preset(cls, name: PresetName, mode: Mode = "on") -> HealingPolicy:
        """The preset's policy with everything else at its default."""
        return cls.model_validate({"mode": mode, "preset": name, **PRESETS[name]})

    def updated(self, request: object, *, where: str = "healing") -> HealingPolicy:
        """Lay a request's settings over this policy.

        `request` is a mode (``"on"``), a mapping of settings, or either as JSON text; a mapping without `mode`
        turns healing on. Naming a `preset` takes that preset's values before the mapping's own.

        Raises:
            PolicyError: naming the field under `where` that is unknown, mistyped, out of range or contradictory.
        """
        settings = _as_mapping(request, where)
        base = self.model_dump()
        preset = settings.get("preset")
        if isinstance(preset, str) and preset in PRESETS:
            base = _merge(base, PRESETS[preset])
        merged = _merge({**base, "mode": "on"}, settings)
        try:
            return HealingPolicy.model_validate(merged)
        except ValidationError as error:
            raise _policy_error(error, where, settings) from None


PRESETS: dict[str, dict[str, Any]] = {
    # 16 x 512-token segments and Erase@5 [reported].
    "paper": {"segment": {"unit": "tokens", "min_tokens": 512, "max_tokens": 512}, "max_erasures": 5},
    # Short segments that end where a reader would pause, so that committed text streams early [ours].
    "responsive": {"segment": {"unit": "sentence", "min_tokens": 24, "max_tokens": 96}, "max_erasures": 3},
}


def _as_mapping(request: object, where: str) -> dict[str, Any]:
    if isinstance(request, str):
        if request in ("off", "shadow", "on"):
            return {"mode": request}
        try:
            request = json.loads(request)
        except (ValueError, RecursionError):
            raise PolicyError(where, f"is {str(request)[:40]!r}, use 'off', 'shadow', 'on' or an object") from None
    if isinstance(request, str):
        return _as_mapping(request, where)
    if not isinstance(request, Mapping):
        raise PolicyError(where, f"is of type {type(request).__name__}, use 'off', 'shadow', 'on' or an object")
    return dict(request)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mappings merged key by key; a `segment` with the `tokens` shorthand replaces whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = dict(value) if "tokens" in value else _merge(below, value)
        else:
            merged[key] = value
    return merged


def _policy_error(error: ValidationError, where: str, settings: Mapping[str, Any]) -> PolicyError:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    segment = settings.get("segment")
    if path[:1] == ["segment"] and isinstance(segment, Mapping) and "tokens" in segment:
        path[1:] = ["tokens"]  # what the user wrote is the shorthand, not the bounds it stands for
    message = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
    return PolicyError(".".join([where, *path]), message.removeprefix("Value error, "))
