"""What an erasure costs beyond the erased tokens: tokens scheduled, counted at the engine's own scheduler.

    inside     healing erases every other segment once, in place
    outside    stock vLLM: the same segments, aborted at their end and resubmitted as prompt + kept prefix, with prefix
               caching to find the prefix again

Both are held against the same requests without erasures on the same engine: `recomputed` is what was scheduled beyond
those and beyond the erased tokens. Everything is in one process, with async scheduling on, so that a step is in flight
at every rollback (vLLM itself turns async scheduling off on CPUs).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import BenchmarkError, parser, run, say, spread
from tests.core.engines.vllm_engine import PROMPTS, engine, ops, scheduler_of

#: No divisor of a block: erasures fall everywhere within blocks, as they do in real answers.
SEGMENT = 20
#: A multiple of two segments: the last segment of an answer is not erased, so that answers end alike everywhere.
TOKENS = 8 * SEGMENT
#: Of an engine's KV cache; 32 is the least that vLLM takes on CPUs, and the best case for resubmitted prefixes.
BLOCK = 32

_ERASING = {"segment": {"tokens": SEGMENT}, "schedule": [1, 0], "max_erasures": 1}

#: name -> healing settings, sampling parameters. All erase by schedule: how often is given, not decided.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "same_temperature": ({**_ERASING, "retry": {"temperature": 0.0}}, {"temperature": 0.0}),
    "other_temperature": ({**_ERASING, "retry": {"temperature": 0.7}}, {"temperature": 0.0}),
    "other_temperature_by_sentence": (
        {**_ERASING, "segment": {"min_tokens": 8, "max_tokens": 40}, "retry": {"temperature": 0.7}},
        {"temperature": 0.0},
    ),
    "keep_best": (
        {**_ERASING, "schedule": [9, 0], "max_erasures": 2, "keep": "best"},
        {"temperature": 1.0, "seed": 7},
    ),
}
HEADLINE = "same_temperature"


@dataclass(frozen=True)
class Pass:
    """One run over all prompts."""

    scheduled: int
    seconds: float
    prompt_tokens: int
    answers: list[list[int]]
    ops: list[Any] = field(default_factory=list)


class Counted:
    """An engine whose scheduled tokens are counted, step by step."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.scheduled = 0
        scheduler = scheduler_of(llm)
        schedule = scheduler.schedule

        def counting(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            self.scheduled += output.total_num_scheduled_tokens
            return output

        scheduler.schedule = counting

    def generate(self, prompts: Sequence[str], healing: object, **sampling: Any) -> Pass:
        """Every prompt answered at once, by the engine's own loop."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, extra_args={"healing": healing}, **sampling)
        begun = self._begin()
        outputs = self.llm.generate(list(prompts), params, use_tqdm=False)
        seconds = time.perf_counter() - begun
        prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
        return Pass(self.scheduled, seconds, prompt_tokens, [list(o.outputs[0].token_ids) for o in outputs], outputs)

    def erase_outside(self, prompts: Sequence[str]) -> tuple[Pass, int, int]:
        """The same erasures by a client of the engine; also how many, and how many tokens were erased."""
        tokenizer = self.llm.get_tokenizer()
        clients = [OutsideClient(i, tokenizer.encode(prompt)) for i, prompt in enumerate(prompts)]
        begun = self._begin()
        for client in clients:
            client.submit(self.llm.llm_engine)
        waiting = {client.request_id: client for client in clients}
        while self.llm.llm_engine.has_unfinished_requests():
            for output in self.llm.llm_engine.step():
                if output.request_id not in waiting:  # aborted: what was in flight
                    continue
                client = waiting.pop(output.request_id)
                client.take(self.llm.llm_engine, list(output.outputs[0].token_ids))
                waiting[client.request_id] = client
        seconds = time.perf_counter() - begun
        prompt_tokens = sum(len(client.prompt) for client in clients)
        done = Pass(self.scheduled, seconds, prompt_tokens, [client.kept for client in clients])
        return done, sum(client.erasures for client in clients), sum(client.erasures * SEGMENT for client in clients)

    def _begin(self) -> float:
        self.llm.reset_prefix_cache()
        self.scheduled = 0
        return time.perf_counter()


class OutsideClient:
    """Erases every other segment once, with what a client has: abort, and a new request."""

    def __init__(self, index: int, prompt: list[int]) -> None:
        self.index = index
        self.prompt = prompt
        self.kept: list[int] = []
        self.erasures = 0
        self._draft: list[int] = []
        self._attempt = 0

    @property
    def request_id(self) -> str:
        return f"outside-{self.index}-{self.erasures}"

    def submit(self, llm_engine: Any) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=TOKENS - len(self.kept), ignore_eos=True, temperature=0.0, output_kind=RequestOutputKind.DELTA
        )
        llm_engine.add_request(self.request_id, {"prompt_token_ids": self.prompt + self.kept}, params)

    def take(self, llm_engine: Any, tokens: list[int]) -> None:
        """Some new tokens; at a segment's end keep it, or erase it and ask again."""
        self._draft += tokens
        while len(self._draft) >= SEGMENT:
            segment = len(self.kept) // SEGMENT
            if segment % 2 == 0 and self._attempt == 0:
                llm_engine.abort_request([self.request_id])
                self.erasures += 1
                self._attempt, self._draft = 1, []
                self.submit(llm_engine)
                return
            self.kept += self._draft[:SEGMENT]
            self._attempt, self._draft = 0, self._draft[SEGMENT:]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    prompts, repeats = (PROMPTS[:2], 1) if args.quick else (PROMPTS, args.repeats)
    if repeats < 1:
        raise BenchmarkError("--repeats takes at least 1")
    model = _model(args.model)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it logs to stdout, where the report goes
    say("healing engine: erasures inside")
    with _counted(model) as counted:
        plain = _median_pass(repeats, lambda: counted.generate(prompts, "off", temperature=0.0))
        cases = {}
        for name, (healing, sampling) in CASES.items():
            done = _median_pass(repeats, partial(counted.generate, prompts, healing, **sampling))
            cases[name] = inside_case(plain, done)
            say(f"{name}: {cases[name]}")
    say("stock engine: the same erasures from outside")
    with _counted(model, scheduler_cls=None, additional_config={}) as counted:
        stock = _median_pass(repeats, lambda: counted.generate(prompts, None, temperature=0.0))
        attempts = [counted.erase_outside(prompts) for _ in range(repeats)]
    outside = outside_case(stock, attempts)
    return {**summarise(cases, outside), "requests": len(prompts), "block_size": BLOCK, "raw": {"repeats": repeats}}


def inside_case(plain: tuple[Pass, list[float]], healed: tuple[Pass, list[float]]) -> dict[str, Any]:
    """The balance of one kind of erasing against the same requests without it."""
    done, seconds = healed
    erased, committed = ops(done.ops, "erased"), ops(done.ops, "committed")
    if not erased:
        raise BenchmarkError("nothing was erased: the schedule did not take")
    reinserted = [op for op in committed if op["attempt"] < op["attempts"] - 1]
    erased_tokens = sum(op["erased_tokens"] for op in committed)
    recomputed = done.scheduled - plain[0].scheduled - erased_tokens
    reinserted_tokens = sum(op["tokens"] for op in reinserted)
    return {
        **_balance(done, erased_tokens, plain),
        "erasures": len(erased),
        "reinsertions": len(reinserted),
        "recomputed_tokens": recomputed,
        "of_these_reinserted": reinserted_tokens,
        "reported_by_the_engine": sum(op["recomputed"] for op in (*erased, *committed)),
        "recomputed_tokens_per_erasure": _per(recomputed - reinserted_tokens, len(erased) + len(reinserted)),
        "answers_equal_to_plain": sum(a == b for a, b in zip(done.answers, plain[0].answers, strict=True)),
        "seconds": spread(seconds),
    }


def outside_case(plain: tuple[Pass, list[float]], attempts: Sequence[tuple[Pass, int, int]]) -> dict[str, Any]:
    """The balance of erasing from outside."""
    done, erasures, erased_tokens = attempts[-1]
    recomputed = done.scheduled - plain[0].scheduled - erased_tokens
    return {
        **_balance(done, erased_tokens, plain),
        "erasures": erasures,
        "recomputed_tokens": recomputed,
        "recomputed_tokens_per_erasure": _per(recomputed, erasures),
        "answers_equal_to_plain": sum(a == b for a, b in zip(done.answers, plain[0].answers, strict=True)),
        "seconds": spread([attempt[0].seconds for attempt in attempts]),
    }


def _balance(done: Pass, erased_tokens: int, plain: tuple[Pass, list[float]]) -> dict[str, Any]:
    return {
        "prompt_tokens": done.prompt_tokens,
        "committed_tokens": sum(map(len, done.answers)),
        "erased_tokens": erased_tokens,
        "scheduled_tokens": done.scheduled,
        "scheduled_tokens_without_erasing": plain[0].scheduled,
        "seconds_without_erasing": spread(plain[1]),
    }


def _per(tokens: int, erasures: int) -> float:
    return round(tokens / erasures, 4)


def summarise(cases: dict[str, dict[str, Any]], outside: dict[str, Any]) -> dict[str, Any]:
    """The headline figures beside everything they come from."""
    inside = cases[HEADLINE]
    if inside["erasures"] != outside["erasures"]:
        raise BenchmarkError(f"{inside['erasures']} erasures inside, {outside['erasures']} outside: not comparable")
    return {
        "targets": {"recomputed_tokens_per_erasure": "<= 1"},
        "recomputed_tokens_per_erasure": inside["recomputed_tokens_per_erasure"],
        "outside_recomputed_tokens_per_erasure": outside["recomputed_tokens_per_erasure"],
        "ratios": {
            "scheduled_tokens_inside_over_outside": round(inside["scheduled_tokens"] / outside["scheduled_tokens"], 4),
            "seconds_inside_over_outside": round(inside["seconds"]["median"] / outside["seconds"]["median"], 4),
        },
        "inside": cases,
        "outside": outside,
    }


def _median_pass(repeats: int, once: Callable[[], Pass]) -> tuple[Pass, list[float]]:
    """The pass of median duration, and every pass's seconds."""
    passes = sorted((once() for _ in range(repeats)), key=lambda done: done.seconds)
    return passes[statistics.median_low(range(repeats))], [done.seconds for done in passes]


@contextmanager
def _counted(model: Path, **options: Any) -> Iterator[Counted]:
    with engine(model, dtype="bfloat16", block_size=BLOCK, max_model_len=2048, **options) as llm:
        counted = Counted(llm)
        counted.generate(PROMPTS[:2], None, temperature=0.0)  # the first pass pays for what later ones find ready
        yield counted


def _model(path: str | None) -> Path:
    if path is not None:
        if not Path(path).is_dir():
            raise BenchmarkError(f"--model {path}: there is no such folder")
        return Path(path)
    from e3rl_core.embedded.model import embedded_model

    return embedded_model()


def main() -> int:
    flags = parser("rollback", "Tokens scheduled per erasure, inside the engine and from outside.")
    flags.add_argument("--repeats", type=int, default=3, metavar="N", help="Passes of each kind.")
    return run("rollback", measure, flags.parse_args())


if __name__ == "__main__":
    sys.exit(main())
