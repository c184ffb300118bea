"""What is compared: an arm is a source of draws, and a rule where one answer is made of several.

plain@T  greedy  top_p@P  min_p@P             stock sampling
healed@T  retry_cool@T  random@T              erasing where unsure; the same, redrawn cooler; at random places
onset@T                                       erasing where unsure, but from the spike on
oracle@T                                      erasing what is wrong: a bound, where steps are labelled
lookahead:N@T                                 where unsure, of N draws the one that goes on best
majority:N@T  best:N@T  agree:N@T  gated:N@T  confident:N@T   N draws of plain@T, or of `@SOURCE`
forked:N@T                                    likewise, but further draws share the beginning of the first
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e3rl_core.errors import EvaluationError
from e3rl_training.evaluation.rules import RULES

#: Redraws of `retry_cool` sample at this temperature.
COOL = 0.3
#: Entries of a random schedule: segments beyond repeat it. The server's bound is 4096.
_SCHEDULE = 256
#: Of one entry, as the setting `max_erasures` has it.
_MOST_ERASURES = 64

#: What a request says so that nothing of a model's own generation config is left.
_STOCK = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "repetition_penalty": 1.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of sources with one number to set."""

    sampling: Callable[[float], dict[str, float]]
    default: float | None
    """Of the number; None: there is none to set."""
    most: float
    """It is above 0 and at most this."""
    heals: bool = False
    """Whether its answers come with erased draws."""
    continues: bool = False
    """Whether they are erased here, by going on from kept beginnings, and not by the server."""
    chooses: bool = False
    """Whether it is named with a number of draws to choose from."""


def _temperature(value: float) -> dict[str, float]:
    return {"temperature": value}


KINDS = {
    "plain": Kind(_temperature, 1.0, 2.0),
    "greedy": Kind(lambda _: {"temperature": 0.0}, None, 0.0),
    "top_p": Kind(lambda value: {"top_p": value}, 0.9, 1.0),
    "min_p": Kind(lambda value: {"min_p": value}, 0.1, 1.0),
    "healed": Kind(_temperature, 1.0, 2.0, heals=True),
    "random": Kind(_temperature, 1.0, 2.0, heals=True),
    "retry_cool": Kind(_temperature, 1.0, 2.0, heals=True),
    "onset": Kind(_temperature, 1.0, 2.0, heals=True),
    "oracle": Kind(_temperature, 1.0, 2.0, heals=True, continues=True),
    "lookahead": Kind(_temperature, 1.0, 2.0, heals=True, continues=True, chooses=True),
}


@dataclass(frozen=True, slots=True)
class Source:
    """One way to draw a response."""

    kind: str
    value: float | None
    candidates: int = 1
    """Draws of a segment to choose from, where the kind chooses."""

    @property
    def name(self) -> str:
        name = f"{self.kind}:{self.candidates}" if KINDS[self.kind].chooses else self.kind
        return name if self.value is None else f"{name}@{self.value}"

    @property
    def heals(self) -> bool:
        return KINDS[self.kind].heals

    @property
    def continues(self) -> bool:
        return KINDS[self.kind].continues

    @property
    def labelled(self) -> bool:
        """Whether it has to be told which segments are wrong."""
        return self.kind == "oracle"

    @property
    def repeats(self) -> bool:
        """Whether a second draw can differ from the first."""
        return self.kind != "greedy"

    @property
    def rate_of(self) -> Source | None:
        """The source whose rate of erasing this one copies."""
        return Source("healed", self.value) if self.kind == "random" else None

    def sampling(self) -> dict[str, float]:
        """A request's sampling parameters."""
        return {**_STOCK, **KINDS[self.kind].sampling(self.value or 0.0)}

    def healing(self, settings: Mapping[str, Any], rate: float, seed: int) -> dict[str, Any]:
        """A request's `healing` field. Without erasing it is shadow mode: stock vLLM's answer, with its uncertainty.

        Args:
            settings: laid over the deployment's own.
            rate: of erasing, per draw of a segment; for `random`.
            seed: of the random schedule.
        """
        if not self.heals or self.continues:
            return {**settings, "mode": "shadow"}
        own: dict[str, Any] = {}
        if self.kind == "retry_cool":
            own = {"retry": {"temperature": COOL}}
        elif self.kind == "onset":
            own = {"erase_from": "onset"}
        elif self.kind == "random":
            own = {"schedule": schedule(rate, seed)}
        return {**settings, **own, "mode": "on"}


def schedule(rate: float, seed: int) -> list[int]:
    """Erasures per segment if each draw were erased with probability `rate`, whatever it says.

    The draws of a segment come to be geometric: as with healing, a redraw may be erased, too. The healer stays free of
    randomness, and its `max_erasures` cuts what is above it.
    """
    if rate <= 0:
        return [0]
    stream = random.Random(f"random-erasure-{seed}")
    # 1 - random() is in (0, 1]: its logarithm is finite.
    return [
        min(_MOST_ERASURES, int(math.log(1 - stream.random()) / math.log(min(rate, 0.99)))) for _ in range(_SCHEDULE)
    ]


@dataclass(frozen=True, slots=True)
class Arm:
    """A source, and a rule over `draws` of its draws; without a rule one draw is the answer."""

    source: Source
    rule: str | None = None
    draws: int = 1

    @property
    def name(self) -> str:
        return self._named(str(self.draws))

    @property
    def family(self) -> str:
        """What it is called with any number of draws."""
        return self._named("N")

    @property
    def gated(self) -> bool:
        """Whether it needs thresholds from calibration problems."""
        return self.rule is not None and RULES[self.rule].gated

    @property
    def forks(self) -> int:
        """How many forks of a draw it may ask for."""
        return self.draws - 1 if self.rule is not None and RULES[self.rule].forks else 0

    def _named(self, draws: str) -> str:
        if self.rule is None:
            return self.source.name
        of = str(self.source.value) if self.source.kind == "plain" else self.source.name
        return f"{self.rule}:{draws}@{of}"


BASE = Arm(Source("plain", 1.0))

DEFAULT = (
    "plain@1.0,plain@0.7,plain@0.3,greedy,top_p@0.9,min_p@0.1,healed,random,retry_cool,"
    "onset,lookahead:3,majority:3,majority:5,best:4,agree:5,gated:5,forked:5,confident:5,majority:3@healed"
)


def parse_arms(text: str) -> list[Arm]:
    """The arms of a list with commas, without repetitions.

    Raises:
        EvaluationError: naming the arm that is unknown or has a number out of range.
    """
    arms = [_arm(part.strip()) for part in text.split(",") if part.strip()]
    if not arms:
        raise EvaluationError("--arms: names no arm; leave it out for the usual ones")
    return list(dict.fromkeys(arms))


def _arm(text: str) -> Arm:
    head, _, of = text.partition("@")
    rule, _, count = head.partition(":")
    if rule not in RULES:
        return Arm(_source(text, text))
    draws = _count(count, rule, text)
    named = of.partition("@")[0].partition(":")[0] in KINDS
    source = _source(of if named else f"plain@{of}", text) if of else BASE.source
    if not source.repeats:
        raise EvaluationError(f"--arms: {text} draws the same answer every time; vote over a source that samples")
    if RULES[rule].forks and source.heals:
        raise EvaluationError(f"--arms: {text}: only plain sampling can be forked; write e.g. {rule}:{count}@0.7")
    return Arm(source, rule, draws)


def _source(text: str, arm: str) -> Source:
    head, at, number = text.partition("@")
    name, colon, count = head.partition(":")
    if name not in KINDS or (colon and not KINDS[name].chooses):
        known = (f"{one}:N" if one in RULES or KINDS[one].chooses else one for one in (*KINDS, *RULES))
        raise EvaluationError(f"--arms: there is no arm {text!r}; there are {', '.join(known)}")
    kind = KINDS[name]
    candidates = _count(count, name, arm) if kind.chooses else 1
    if not at:
        return Source(name, kind.default, candidates)
    if kind.default is None:
        raise EvaluationError(f"--arms: {arm}: {name} has no number to set; write {name}")
    try:
        value = float(number)
    except ValueError:
        raise EvaluationError(
            f"--arms: {arm}: {number!r} is neither a number nor a source; write e.g. {name}@0.7"
        ) from None
    if not 0 < value <= kind.most:
        raise EvaluationError(f"--arms: {arm}: {number} is out of range; it has to be above 0 and at most {kind.most}")
    return Source(name, value, candidates)


def _count(text: str, of: str, arm: str) -> int:
    if not text.isdigit() or not 2 <= int(text) <= 64:
        raise EvaluationError(f"--arms: {arm} needs a number of draws from 2 to 64, e.g. {of}:4@0.7")
    return int(text)


def sources_of(arms: Sequence[Arm]) -> list[Source]:
    """The sources to draw from, each once, those that another one needs the rate of in front."""
    found = [source for arm in arms for source in (arm.source.rate_of, arm.source) if source is not None]
    return sorted(dict.fromkeys(found), key=lambda source: source.rate_of is not None)
