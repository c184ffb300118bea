"""The `healing` field of a request, typed; docs/configuration.md has each setting's meaning, bounds and default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, cast

Mode = Literal["off", "shadow", "on"]


class SegmentSettings(TypedDict, total=False):
    """Where a segment ends, in tokens; `tokens` is a fixed length and stands alone."""

    unit: Literal["tokens", "sentence", "line"]
    min_tokens: int
    max_tokens: int
    tokens: int


class UncertaintySettings(TypedDict, total=False):
    """How token surprisals become one number per segment."""

    signal: Literal["surprisal", "entropy"]
    smoothing: float
    mean: float
    max: float
    rise: float


class ThresholdSettings(TypedDict, total=False):
    """What counts as too uncertain; a lower `k` erases more."""

    k: float
    gamma: float
    eta: float
    floor: float
    group_weight: float
    decay: float
    prior_segments: float


class BudgetSettings(TypedDict, total=False):
    """What a response may spend on erasing; None: no bound."""

    erased_tokens: int | None
    erased_fraction: float | None
    deadline_ms: int | None


class RetrySettings(TypedDict, total=False):
    """How a redraw differs; None: it samples at the request's temperature."""

    temperature: float | None


class HealingSettings(TypedDict, total=False):
    """All settings of a request. Without `mode` they turn healing on."""

    mode: Mode
    preset: Literal["paper", "responsive"]
    segment: SegmentSettings
    uncertainty: UncertaintySettings
    threshold: ThresholdSettings
    max_erasures: int
    budget: BudgetSettings
    retry: RetrySettings
    erase_from: Literal["segment", "onset"]
    keep: Literal["last", "best"]
    scope: Literal["all", "reasoning"]
    stream: Literal["committed", "live"]
    return_erased: bool
    schedule: Sequence[int] | None


#: What `healing=` takes.
Healing = Mode | HealingSettings


def heals(healing: Healing) -> bool:
    """Whether an answer with these settings tells of healing.

    >>> heals("shadow"), heals({"max_erasures": 1}), heals({"mode": "off"})
    (True, True, False)
    """
    return (healing if isinstance(healing, str) else healing.get("mode", "on")) != "off"


def live(healing: Healing) -> Healing:
    """The same settings, with events while the answer is drawn.

    >>> live("on")
    {'mode': 'on', 'stream': 'live'}
    >>> live({"threshold": {"k": 0.5}})
    {'threshold': {'k': 0.5}, 'stream': 'live'}
    >>> live("off")
    'off'
    """
    if not heals(healing):
        return healing
    settings = {"mode": healing} if isinstance(healing, str) else healing
    return cast(HealingSettings, {**settings, "stream": "live"})
