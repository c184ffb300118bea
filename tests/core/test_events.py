"""The op log and the wire events: round trips, and what a reader refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3rl_core.errors import EventError
from e3rl_core.events import (
    BudgetExhausted,
    BudgetOp,
    CommittedOp,
    DraftedOp,
    ErasedOp,
    Replay,
    RetrySpec,
    Score,
    SegmentCommitted,
    SegmentDelta,
    SegmentErased,
    SegmentStarted,
    Summary,
    committed_op,
    dump_ops,
    erased_op,
    load_ops,
    parse_event,
)
from e3rl_core.healer import Commit, Healer, Limit, Reason
from e3rl_core.policy import HealingPolicy
from tests.core.healing_harness import Sample, drive, policies, samples

SCORE = Score(u=1.0, mean=0.5, max=2.0, slope=-0.1)
AT = {"segment": 0, "attempt": 0, "start_char": 0}
RETRY = RetrySpec(attempt=1, temperature=0.7)


def erased(seq: int, **at: int) -> SegmentErased:
    where = {**AT, **at}
    return SegmentErased(
        seq=seq, tokens=3, uncertainty=SCORE, threshold=0.5, reason=Reason.UNCERTAINTY, retry=RETRY, **where
    )


def committed(seq: int, chars: int, text: str | None = None, **at: int) -> SegmentCommitted:
    return SegmentCommitted(seq=seq, chars=chars, text=text, tokens=3, uncertainty=SCORE, attempts=1, **{**AT, **at})


@given(policies(), samples, st.booleans())
def test_ops_survive_the_process_boundary(policy: HealingPolicy, stream: list[Sample], with_tokens: bool) -> None:
    run = drive(Healer(policy), stream, max_tokens=40)
    ops: list[ErasedOp | CommittedOp | DraftedOp | BudgetOp] = [
        committed_op(verdict, recomputed=1, with_tokens=with_tokens)
        if isinstance(verdict, Commit)
        else erased_op(verdict, temperature=0.7, recomputed=2, with_tokens=with_tokens)
        for verdict in run.verdicts
    ]
    ops += [DraftedOp(segment=0, attempt=1, token_ids=[4]), BudgetOp(budget=Limit.ERASED_TOKENS)]
    assert load_ops(json.loads(json.dumps(dump_ops(ops)))) == ops


def test_ops_carry_tokens_and_logprobs_on_request_only() -> None:
    commit = drive(Healer(HealingPolicy()), [Sample(0, 0.25)], max_tokens=9).commits[0]
    with_tokens = committed_op(commit, recomputed=0, with_tokens=True)
    assert (with_tokens.token_ids, with_tokens.logprobs) == ([0], [-0.25])
    assert "token_ids" not in dump_ops([committed_op(commit, recomputed=0, with_tokens=False)])[0]


def test_an_erasure_names_its_redraw() -> None:
    policy = HealingPolicy().updated({"segment": {"tokens": 1}, "schedule": [1], "max_erasures": 1})
    erase = drive(Healer(policy), [Sample(5, 0.25)], max_tokens=1).erases[0]
    op = erased_op(erase, temperature=0.4, recomputed=1, with_tokens=False)
    assert (op.attempt, op.reason, op.retry, op.recomputed) == (0, "schedule", RetrySpec(attempt=1, temperature=0.4), 1)


@pytest.mark.parametrize(
    "ops", [None, {}, [{"op": "melted"}], [{"op": "budget"}], [{"op": "budget", "budget": "love"}]]
)
def test_what_is_no_op_log_is_refused(ops: object) -> None:
    with pytest.raises(EventError, match="op log"):
        load_ops(ops)


@pytest.mark.parametrize(
    "event",
    [
        SegmentStarted(seq=0, **AT),
        SegmentDelta(seq=1, text="a", channel="reasoning", choice=1, **AT),
        erased(2),
        committed(3, chars=1, text="a"),
        BudgetExhausted(seq=4, budget=Limit.DEADLINE, **AT),
        Summary(mode="on", segments=1, erasures=0, erased_tokens=0, committed_tokens=3, mean_uncertainty=None, seq=5),
    ],
    ids=lambda event: event.type,
)
def test_events_survive_json(event: SegmentStarted) -> None:
    assert parse_event(json.loads(event.model_dump_json())) == event


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_foreign_protocol_version_is_refused(version: object) -> None:
    data = {**SegmentStarted(seq=0, **AT).model_dump(), "v": version}
    with pytest.raises(EventError, match="protocol version"):
        parse_event(data)


@pytest.mark.parametrize("change", [{"type": "segment.melted"}, {"seq": "first"}, {"colour": "red"}])
def test_malformed_events_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(EventError, match="healing event"):
        parse_event({**SegmentStarted(seq=0, **AT).model_dump(), **change})


def test_replay_rebuilds_committed_text_and_the_open_attempt() -> None:
    replay = Replay()
    second = {"segment": 1, "start_char": 3}
    for event in (
        SegmentStarted(seq=0, **AT),
        SegmentDelta(seq=1, text="wrong", **AT),
        erased(2),
        SegmentStarted(seq=3, **{**AT, "attempt": 1}),
        SegmentDelta(seq=4, text="righ", **{**AT, "attempt": 1}),
        committed(5, chars=3, attempt=1),
        SegmentStarted(seq=6, attempt=0, **second),
        SegmentDelta(seq=7, text="ht", attempt=0, **second),
    ):
        replay.feed(event)
    assert (replay.committed, replay.open) == ({0: "rig"}, {0: "ht"})


def test_replay_takes_the_text_of_a_reinserted_draw() -> None:
    replay = Replay()
    for event in (SegmentStarted(seq=0, **AT), SegmentDelta(seq=1, text="last", **AT), committed(2, 4, text="best")):
        replay.feed(event)
    assert replay.committed == {0: "best"}


def test_replay_keeps_choices_apart() -> None:
    replay = Replay()
    for seq, choice in enumerate((0, 1, 0, 1)):
        replay.feed(SegmentDelta(seq=seq, choice=choice, text=str(seq), **AT))
    assert replay.open == {0: "02", 1: "13"}


@pytest.mark.parametrize("seq", [0, 2, 3])
def test_replay_refuses_a_gap_and_a_repeat(seq: int) -> None:
    replay = Replay()
    replay.feed(SegmentStarted(seq=0, **AT))
    with pytest.raises(EventError, match=f"seq {seq}, expected 1"):
        replay.feed(SegmentDelta(seq=seq, text="a", **AT))


def test_replay_refuses_text_that_does_not_continue_the_committed() -> None:
    with pytest.raises(EventError, match="starts at char 5, committed are 0"):
        Replay().feed(SegmentStarted(seq=0, **{**AT, "start_char": 5}))


def test_replay_refuses_to_commit_more_than_was_shown() -> None:
    replay = Replay()
    replay.feed(SegmentDelta(seq=0, text="ab", **AT))
    with pytest.raises(EventError, match="commits 3 chars of an attempt of 2"):
        replay.feed(committed(1, chars=3))
