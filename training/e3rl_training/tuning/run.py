"""A tuning from its settings to its report."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import PROFILE_NAME, Profile
from e3rl_training.evaluation import run as evaluation
from e3rl_training.evaluation.arms import Arm, Source
from e3rl_training.evaluation.measures import Result, Samples, curve_of, result_of
from e3rl_training.evaluation.plan import Plan
from e3rl_training.evaluation.problems import Problems
from e3rl_training.evaluation.rules import Thresholds
from e3rl_training.evaluation.samples import write_whole
from e3rl_training.evaluation.statistics import Bootstrap
from e3rl_training.export import suggested, versions
from e3rl_training.tuning import measures, report, search
from e3rl_training.tuning.space import candidates, space

REPORT, READABLE, FOUND = "report.json", "report.md", "healing.json"
#: Plain sampling at this temperature is the rival that costs nothing.
COLD = 0.3
#: Problems that a tuning cannot do without, for both halves.
_FEWEST = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """What a tuning is, the server aside."""

    temperature: float
    candidates: int
    """Settings that are tried, the server's own among them."""
    scoring: bool
    """Whether those that decide what U means are searched, too."""
    samples: int = 4
    """Draws per problem."""
    max_tokens: int | None = None
    seed: int = 0
    concurrency: int = 32


def tune(
    problems: Problems,
    settings: Settings,
    client: evaluation.Client,
    folder: Path,
    *,
    command: str,
    profile: Profile | None,
) -> dict[str, Any]:
    """Search settings on half of the problems, measure what was found on the other half; the report.

    Args:
        problems: all of them.
        settings: of the tuning.
        client: to the server.
        folder: of samples, report and what was found.
        command: for the report.
        profile: that the server heals by, to leave one with the settings found; None where none is known.

    Raises:
        EvaluationError: there are too few problems, the server does not answer (any more), or the folder is another
            tuning's. What was drawn is kept.
    """
    searched, held_out = _halves(len(problems.asked), settings.seed)
    tuning = _Tuning(problems, settings, client, folder)
    write_whole(folder / REPORT, json.dumps({"complete": False}) + "\n")
    write_whole(folder / READABLE, report.INCOMPLETE)
    tried = candidates(
        settings.candidates, temperature=settings.temperature, scoring=settings.scoring, seed=settings.seed
    )
    rounds = tuning.search(tried, searched)
    best = rounds[-1].ranking[0]
    found: dict[str, Any] = {
        "complete": True,
        "settings": {
            "model": Path(tuning.model).name,
            "data": problems.title,
            "problems_digest": problems.digest[:16],
            "temperature": settings.temperature,
            "samples": settings.samples,
            "seed": settings.seed,
            "tried": len(tried),
            "searched": list(space(settings.scoring)),
        },
        "found": tried[best],
        "search": {
            "problems": len(searched),
            "gain": round(rounds[-1].scores[best], 4),
            "rounds": [
                {"problems": one.problems, "gains": {number: round(gain, 4) for number, gain in one.scores.items()}}
                for one in rounds
            ],
            "candidates": tried,
        },
        "held_out": {"problems": len(held_out), "arms": tuning.compare(tried[best], held_out)},
        "run": {
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(*evaluation.DISTRIBUTIONS),
        },
    }
    write_whole(folder / FOUND, json.dumps(tried[best], indent=2) + "\n")
    if profile is not None:
        tuned_profile(profile, tried[best], command).save(folder / PROFILE_NAME)
    write_whole(folder / READABLE, report.markdown(found))
    write_whole(folder / REPORT, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return found


def tuned_profile(profile: Profile, found: Mapping[str, Any], command: str) -> Profile:
    """A profile with other settings: its moments stay, since no setting that they depend on was searched."""
    policy = profile.policy(HealingPolicy()).updated({"mode": "on", **found})
    provenance = {**profile.provenance, "tuned": command}
    return profile.model_copy(update={"settings": suggested(policy), "provenance": provenance})


class _Tuning:
    """Draws from a server under the settings it is told to try."""

    def __init__(self, problems: Problems, settings: Settings, client: evaluation.Client, folder: Path) -> None:
        self.model = ""
        self._problems = problems
        self._settings = settings
        self._client = client
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvaluationError(f"-o {folder}: cannot be made ({error.strerror}); name another folder") from None
        self._plain = Source("plain", settings.temperature)
        self._healed = Source("healed", settings.temperature)

    def search(self, tried: Sequence[Mapping[str, Any]], problems: Sequence[int]) -> list[search.Round]:
        """The rounds of the search over these settings on these problems."""
        plain = measures.plain_sizes(*self._draw("plain", [self._plain], {}, problems), self._plain)
        mixtures: dict[int, Any] = {}

        def score(number: int, asked: int) -> float:
            if asked not in mixtures:
                mixtures[asked] = curve_of([measures.first(size, asked) for size in plain])
            drawn = self._draw(f"settings-{number:03}", [self._healed], tried[number], problems[:asked])
            return measures.gain(_alone(self._healed, *drawn), mixtures[asked])

        return search.halve(len(tried), len(problems), score)

    def compare(self, found: Mapping[str, Any], problems: Sequence[int]) -> dict[str, Any]:
        """The settings found beside their rivals, on problems that the search has not seen."""
        cold, erasing = Source("plain", COLD), Source("random", self._settings.temperature)
        drawn = self._draw("held-out-plain", list(dict.fromkeys([self._plain, cold])), {}, problems)
        default = self._draw("held-out-default", [self._healed], {}, problems)
        tuned = self._draw("held-out-tuned", [self._healed, erasing], found, problems)
        arms = {
            "tuned": _alone(self._healed, *tuned),
            "default": _alone(self._healed, *default),
            **{source.name: _alone(source, *drawn) for source in (self._plain, cold)},
            erasing.name: _alone(erasing, *tuned),
        }
        plain = measures.plain_sizes(*drawn, self._plain)
        return measures.comparison(arms, plain, "tuned", Bootstrap(len(problems), self._settings.seed))

    def _draw(
        self, name: str, sources: Sequence[Source], healing: Mapping[str, Any], problems: Sequence[int]
    ) -> tuple[Samples, Plan]:
        """The samples of some sources under some settings, in a folder of their own."""
        ours = self._settings
        settings = evaluation.Settings(
            arms=[Arm(source) for source in sources],
            samples=ours.samples,
            max_tokens=ours.max_tokens,
            seed=ours.seed,
            healing=healing,
            concurrency=ours.concurrency,
        )
        plan = Plan(settings.arms, (), problems, ours.samples)
        collecting = evaluation.collect(
            self._problems, settings, plan, self._client, self._folder / "samples" / name, lambda *_: None
        )
        store, named = asyncio.run(collecting)
        self.model = named["model"]
        return store.samples, plan


def _alone(source: Source, samples: Samples, plan: Plan) -> Result:
    return result_of(Arm(source), samples, plan, Thresholds())


def _halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the problems to search on, in the order of the search, and of those held out."""
    if count < _FEWEST:
        raise EvaluationError(
            f"--limit: {count} problems are too few to search on half of them and report on the others; "
            f"use {_FEWEST} or more"
        )
    order = list(range(count))
    random.Random(f"tune-{seed}").shuffle(order)
    return order[: count // 2], sorted(order[count // 2 :])
