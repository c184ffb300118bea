"""What a response is worth: checkers of answers and formats, and any function of the user's.

Each is called per completion. All but `exact` run in a process of their own, with a time limit (`verifier`): sympy, a
regular expression or a user's function may take for ever on the text that a model comes up with.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from e3rl_core.errors import RewardError
from e3rl_training.verifier import Unanswered, Verifier

_log = logging.getLogger(__name__)

#: Built-in rewards.
BUILT_IN = ("maths", "exact", "format")

#: What `format` asks for by default: thinking that is closed and followed by an answer, or an answer in a box. The
#: opening tag is optional since many chat templates end the prompt with it.
DEFAULT_PATTERN = r"\s*(<think>)?.+?</think>\s*\S.*|.*\\boxed\{.+\}.*"

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_FINAL = re.compile(r"####|=")


class RewardSpec(BaseModel):
    """One reward function of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="maths, exact, format, or package.module:function, called as (completion, answer).")
    weight: float = Field(1.0, allow_inf_nan=False, description="Its share in the sum of rewards.")
    timeout: float = Field(5.0, gt=0.0, allow_inf_nan=False, description="Seconds it may take on one completion.")
    pattern: str | None = Field(
        None,
        description="Of `format`: regular expression that a whole completion matches, where `.` is any character. "
        "Null: closed thinking and then an answer, or an answer in \\boxed{}.",
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BUILT_IN and not _REFERENCE.fullmatch(name):
            raise ValueError(f"there is no reward {name!r}; use {', '.join(BUILT_IN)} or package.module:function")
        return name

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return pattern

    @model_validator(mode="after")
    def _only_format_matches(self) -> RewardSpec:
        if self.pattern is not None and self.name != "format":
            raise ValueError(f"pattern goes with the reward format, not with {self.name}; leave it out")
        return self


class Reward:
    """A reward function as TRL calls it."""

    def __init__(self, spec: RewardSpec, name: str) -> None:
        self.spec = spec
        self.__name__ = name  # TRL logs rewards/NAME/mean
        self.unanswered = 0
        """Completions that a built-in checker came to no end with: they count as wrong."""
        self.verifier: Verifier | None = None
        if spec.name != "exact":
            own = {"maths": f"{__name__}:maths", "format": f"{__name__}:matches"}
            self.verifier = Verifier(own.get(spec.name, spec.name), spec.timeout, spec.name)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        """One number per completion: text, or the messages of a conversation, of which the last one counts.

        Raises:
            RewardError: there is no `answer` column, or the function failed.
        """
        if self.spec.name == "format":
            references = [self.spec.pattern or DEFAULT_PATTERN] * len(completions)
        elif "answer" in columns:
            references = [str(answer) for answer in columns["answer"]]
        else:
            raise RewardError(f"rewards.{self.spec.name}: the data has no column answer; name it in data.columns")
        return [self._score(_text(one), it) for one, it in zip(completions, references, strict=True)]

    def close(self) -> None:
        """End the process it runs in, if any; a later call starts another one."""
        if self.verifier is not None:
            self.verifier.close()

    def _score(self, completion: str, reference: str) -> float:
        if self.verifier is None:
            return exact(completion, reference)
        try:
            return self.verifier.score(completion, reference)
        except Unanswered:
            if self.spec.name not in BUILT_IN:
                raise
            # What our own checkers cannot check is the model's doing, and no reason to end a run.
            self.unanswered += 1
            if self.unanswered == 1:
                _log.warning(  # without the completion: what models and users write stays out of logs
                    "rewards.%s: a completion could not be checked within %g s and counts as wrong; "
                    "further ones do so silently",
                    self.spec.name,
                    self.spec.timeout,
                )
            return 0.0


def reward_functions(specs: Sequence[RewardSpec]) -> list[Reward]:
    """The functions for TRL, in order, with names that differ.

    Raises:
        RewardError: one cannot be imported.
    """
    total: Counter[str] = Counter()
    rewards = []
    for spec in specs:
        total[spec.name] += 1
        reward = Reward(spec, spec.name if total[spec.name] == 1 else f"{spec.name}_{total[spec.name]}")
        if reward.verifier is not None:
            reward.verifier.start()
        rewards.append(reward)
    return rewards


def exact(completion: str, answer: str) -> float:
    """1.0 if the final answers are the same text.

    A final answer is what follows the last ``=`` or ``####``, or else the whole text; without white space, ``;`` and
    ``.`` at its end. So ``7+8=5;5*3=5;`` answers 5.
    """
    return float(_final(completion) == _final(answer))


def maths(completion: str, answer: str) -> float:
    """1.0 if math-verify finds the completion's answer equal to the reference, as numbers or expressions.

    It has no time limit: math-verify's own needs the main thread, and cannot interrupt everything.
    """
    from math_verify import parse, verify  # imports sympy, for the worker only

    # It warns that it has no time limit: that is ours. Further on it would log what it parses.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    last = completion.rstrip().rpartition("\n")[2]
    if last.startswith("####"):  # GSM8K's mark means nothing to math-verify, which may choose a number before it
        completion = last.removeprefix("####")
    return float(verify(_reference(answer), parse(completion, parsing_timeout=None), timeout_seconds=None))


def matches(completion: str, pattern: str) -> float:
    """1.0 if the whole completion matches the regular expression; `.` is any character, line ends too."""
    return float(re.fullmatch(pattern, completion, re.DOTALL) is not None)


@lru_cache(maxsize=256)  # a group's completions share their reference
def _reference(answer: str) -> list[Any]:
    """A reference, bare or as GSM8K writes it, as math-verify's expressions."""
    from math_verify import parse

    bare = answer.rpartition("####")[2].strip()
    marked = bare if "\\boxed" in bare or "$" in bare else f"\\boxed{{{bare}}}"
    return list(parse(marked, parsing_timeout=None))


def _final(text: str) -> str:
    return _FINAL.split(text)[-1].strip().rstrip(";. \t\r\n")


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())  # parts of a message, or a call without text
