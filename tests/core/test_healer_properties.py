"""What holds for every policy and every stream of samples."""

import pickle
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from e3rl_core.healer import Erase, Healer, Limit
from e3rl_core.policy import HealingPolicy
from e3rl_core.threshold import GroupHistory
from tests.core.healing_harness import Run, Sample, drive, policies, samples

lengths = st.integers(1, 80)


@given(policies(), samples, lengths)
def test_every_fed_token_is_committed_erased_or_open_at_every_moment(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    def watch(healer: Healer, run: Run) -> None:
        totals, opened = healer.totals, len(healer.open_tokens)
        assert len(run.fed) == totals.committed_tokens + totals.erased_tokens + opened
        assert run.context == run.committed + list(healer.open_tokens)

    drive(Healer(policy), stream, max_tokens, watch)


@given(policies(), samples, lengths)
def test_committed_segments_partition_the_kept_tokens_in_order(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    healer = Healer(policy)
    run = drive(healer, stream, max_tokens)
    assert run.context == run.committed
    assert [commit.segment for commit in run.commits] == list(range(healer.totals.segments))
    assert [commit.draw.final for commit in run.commits] == [False] * (len(run.commits) - 1) + [True]


@given(policies(), samples, lengths)
def test_attempts_are_counted_and_capped(policy: HealingPolicy, stream: list[Sample], max_tokens: int) -> None:
    healer = Healer(policy)
    run = drive(healer, stream, max_tokens)
    streak, heads = 0, [id(erase.head) for erase in run.erases]
    for verdict in run.verdicts:
        if isinstance(verdict, Erase):
            streak += 1
        elif id(verdict) not in heads:  # what is kept of a draw that is erased in part ends no streak
            streak = 0
        assert streak <= policy.max_erasures
    for segment, verdicts in groupby(run.verdicts, key=lambda verdict: verdict.segment):
        *erases, commit = verdicts
        assert [erase.draw.attempt for erase in erases] == list(range(len(erases)))
        assert commit.attempts == len(erases) + 1, segment
        assert commit.first_u == ([*erases, commit][0]).draw.uncertainty.u
    assert healer.totals.erasures == len(run.erases)
    assert healer.totals.erased_tokens == sum(commit.erased_tokens for commit in run.commits)


@given(policies(), samples, lengths)
def test_budgets_are_never_exceeded_at_any_moment(policy: HealingPolicy, stream: list[Sample], max_tokens: int) -> None:
    def watch(healer: Healer, run: Run) -> None:
        totals, budget = healer.totals, policy.budget
        if budget.erased_tokens is not None:
            assert totals.erased_tokens <= budget.erased_tokens
        if budget.erased_fraction is not None and policy.schedule is None:
            redraw_to_come = policy.segment.max_tokens
            drawn = totals.committed_tokens + totals.erased_tokens + redraw_to_come
            assert totals.erased_tokens <= budget.erased_fraction * drawn + 1e-9

    drive(Healer(policy), stream, max_tokens, watch)


@given(policies(), samples, lengths)
def test_nothing_late_is_erased(policy: HealingPolicy, stream: list[Sample], max_tokens: int) -> None:
    late = [Sample(sample.token, sample.surprisal, sample.boundary, late=True) for sample in stream]
    run = drive(Healer(policy), late, max_tokens)
    assert run.erases == []


@given(policies(budget={"erased_fraction": None}), samples, lengths)
def test_without_budgets_a_commit_is_forced_by_nothing_but_the_cap_or_the_clock(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    run = drive(Healer(policy), stream, max_tokens)
    assert {commit.limit for commit in run.commits} <= {None, Limit.MAX_ERASURES, Limit.DEADLINE}
    assert all(commit.reason is not None for commit in run.commits if commit.limit is not None)


@given(policies(schedule=None), samples, lengths)
def test_thresholds_never_fall_with_the_erasures_at_a_checkpoint(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    run = drive(Healer(policy), stream, max_tokens)
    for _, verdicts in groupby(run.verdicts, key=lambda verdict: verdict.segment):
        bars = [verdict.draw.threshold for verdict in verdicts if not getattr(verdict, "reinserted", False)]
        assert bars == sorted(bars)
        rising = [bar for bar in bars if bar > policy.threshold.floor]
        assert len(set(rising)) == len(rising)


@given(policies(keep="best", budget={"erased_fraction": None}), samples, lengths)
def test_keep_best_keeps_the_lowest_u_wherever_a_limit_forced_the_commit(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    run = drive(Healer(policy), stream, max_tokens)
    for _, group in groupby(run.verdicts, key=lambda verdict: verdict.segment):
        *erases, commit = group
        if commit.limit is not None:
            assert all(commit.draw.uncertainty.u <= erase.draw.uncertainty.u for erase in erases)


@given(policies(erase_from="onset", schedule=None), samples, lengths)
def test_from_the_onset_only_what_is_above_the_threshold_goes(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    run = drive(Healer(policy), stream, max_tokens)
    for erase in run.erases:
        assert erase.draw.uncertainty.u > erase.draw.threshold
        if erase.head is not None:
            kept = erase.head.draw
            assert kept.uncertainty.max <= kept.threshold < erase.draw.surprisals[0]
            assert (erase.head.segment, erase.draw.attempt) == (erase.segment - 1, 0)
            assert kept.tokens and not kept.final


@given(policies(keep="last"), samples, lengths)
def test_keep_last_never_reinserts(policy: HealingPolicy, stream: list[Sample], max_tokens: int) -> None:
    run = drive(Healer(policy), stream, max_tokens)
    assert not any(commit.reinserted for commit in run.commits)


@given(policies(mode="shadow"), samples, lengths)
def test_shadow_commits_exactly_what_it_was_fed(policy: HealingPolicy, stream: list[Sample], max_tokens: int) -> None:
    run = drive(Healer(policy), stream, max_tokens)
    assert run.committed == run.fed
    assert run.erases == []


@given(policies(erase_from="segment", budget={"erased_fraction": None}), samples, lengths)
def test_shadow_reports_the_reasons_that_on_acts_on(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int
) -> None:
    """For first draws, up to the first erasure: from there on the two decode different texts."""
    shadow = drive(Healer(policy.updated({"mode": "shadow"})), stream, max_tokens)
    on = drive(Healer(policy), stream, max_tokens)
    for watched, acted in zip(shadow.commits, on.verdicts, strict=False):
        assert (watched.draw, watched.reason) == (acted.draw, acted.reason)
        if acted in on.erases:
            return


@given(policies(), samples, lengths, st.data())
def test_the_same_inputs_give_the_same_verdicts(
    policy: HealingPolicy, stream: list[Sample], max_tokens: int, data: st.DataObject
) -> None:
    siblings = data.draw(st.lists(st.floats(0.0, 9.0), max_size=3))

    def once() -> Run:
        group = GroupHistory()
        for member, u in enumerate(siblings, start=1):
            group.add(0, member, u)
        return drive(Healer(policy, group=group), stream, max_tokens)

    assert once() == once()


def test_memory_does_not_grow_with_the_response() -> None:
    policy = HealingPolicy().updated({"segment": {"tokens": 4}, "keep": "best", "threshold": {"k": 0.5}})
    stream = [Sample(token, surprisal) for token, surprisal in enumerate([0.1, 2.0, 5.0, 0.3, 1.0], start=1)]
    sizes: dict[int, int] = {}

    def watch(healer: Healer, run: Run) -> None:
        if not healer.open_tokens and healer.attempt == 0:
            sizes[healer.segment] = len(pickle.dumps(healer))

    drive(Healer(policy), stream, 4000, watch)
    assert sizes[1000] <= sizes[10] + 64
