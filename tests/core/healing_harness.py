"""A model-free engine around the healer, and hypothesis strategies for what it may meet. Shared by the core tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from e3rl_core.healer import Commit, Erase, Healer, Verdict
from e3rl_core.policy import HealingPolicy

EOS = 0


@dataclass(frozen=True)
class Sample:
    """What the fake model emits at one step."""

    token: int
    surprisal: float
    boundary: int = 0
    late: bool = False


@dataclass
class Run:
    """Everything that happened while one response was healed."""

    context: list[int] = field(default_factory=list)
    """The engine's tokens: committed ones, then the open draw."""
    fed: list[int] = field(default_factory=list)
    verdicts: list[Commit | Erase] = field(default_factory=list)

    @property
    def commits(self) -> list[Commit]:
        return [verdict for verdict in self.verdicts if isinstance(verdict, Commit)]

    @property
    def erases(self) -> list[Erase]:
        return [verdict for verdict in self.verdicts if isinstance(verdict, Erase)]

    @property
    def committed(self) -> list[int]:
        return [token for commit in self.commits for token in commit.draw.tokens]


def drive(
    healer: Healer,
    samples: Sequence[Sample],
    max_tokens: int,
    watch: Callable[[Healer, Run], None] = lambda healer, run: None,
) -> Run:
    """Decode until the response is over, with `samples` repeated for as long as it takes; `watch` sees every step."""
    run = Run()
    checkpoint = 0
    for sample in _forever(samples):
        run.context.append(sample.token)
        run.fed.append(sample.token)
        final = sample.token == EOS or len(run.context) == max_tokens
        verdict: Verdict = healer.feed(
            sample.token, sample.surprisal, boundary=sample.boundary, final=final, late=sample.late
        )
        if isinstance(verdict, Erase):
            if verdict.head is not None:
                run.verdicts.append(verdict.head)
                checkpoint += len(verdict.head.draw.tokens)
            run.verdicts.append(verdict)
            del run.context[checkpoint:]
        elif isinstance(verdict, Commit):
            run.verdicts.append(verdict)
            if verdict.reinserted:
                run.context[checkpoint:] = verdict.draw.tokens
            checkpoint = len(run.context)
        watch(healer, run)
        if isinstance(verdict, Commit) and verdict.draw.final:
            return run
    raise AssertionError("unreachable")


def _forever(samples: Sequence[Sample]) -> Iterator[Sample]:
    """`samples` over and over, each round with other token ids, so that draws can be told apart."""
    offset = 0
    for step in range(1_000_000):
        sample = samples[step % len(samples)]
        if step and step % len(samples) == 0:
            offset += 1000
        token = EOS if sample.token == EOS else sample.token + offset
        yield Sample(token, sample.surprisal, sample.boundary, sample.late)
    raise AssertionError("the loop did not end")


samples = st.lists(
    st.builds(
        Sample,
        token=st.integers(0, 30),
        surprisal=st.floats(0.0, 12.0),
        boundary=st.integers(0, 2),
        late=st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@st.composite
def policies(draw: st.DrawFn, **fixed: object) -> HealingPolicy:
    """Any policy a request could ask for, small enough that a lot happens in few tokens."""
    shortest = draw(st.integers(1, 5))
    cap = draw(st.integers(0, 4))
    settings = {
        "segment": {
            "unit": draw(st.sampled_from(["tokens", "sentence", "line"])),
            "min_tokens": shortest,
            "max_tokens": shortest + draw(st.integers(0, 5)),
        },
        "threshold": {
            "k": draw(st.floats(-1.0, 2.0)),
            "gamma": draw(st.floats(1.01, 2.0)),
            "floor": draw(st.floats(0.0, 1.0)),
        },
        "max_erasures": cap,
        "budget": {
            "erased_tokens": draw(st.none() | st.integers(0, 40)),
            "erased_fraction": draw(st.none() | st.floats(0.0, 1.0)),
        },
        "erase_from": draw(st.sampled_from(["segment", "onset"])),
        "keep": draw(st.sampled_from(["last", "best"])),
        "schedule": draw(st.none() | st.lists(st.integers(0, cap), min_size=1, max_size=4)),
        **fixed,
    }
    return HealingPolicy().updated(settings)
