"""F6-F7 and the state machine: fixed cases."""

import pytest

from e3rl_core.healer import Commit, Erase, Healer, Hold, Limit, Reason
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import DEFAULT_PRIOR, Profile
from e3rl_core.threshold import GroupHistory, Moments, threshold


def policy(**settings: object) -> HealingPolicy:
    """Two-token segments, U = mean surprisal, no budget, unless `settings` says otherwise."""
    plain = {
        "segment": {"tokens": 2},
        "uncertainty": {"smoothing": 0.0, "max": 0.0, "rise": 0.0},
        "budget": {"erased_fraction": None},
    }
    return HealingPolicy().updated({**plain, **settings})


def feed(healer: Healer, *surprisals: float, **last: bool) -> Hold | Commit | Erase:
    """Feed one draw, tokens 1, 2, ..; `last` goes with its last token."""
    verdict: Hold | Commit | Erase = Hold()
    for number, surprisal in enumerate(surprisals, start=1):
        verdict = healer.feed(number, surprisal, **(last if number == len(surprisals) else {}))
    return verdict


def committed(verdict: Hold | Commit | Erase) -> Commit:
    assert isinstance(verdict, Commit)
    return verdict


def erased(verdict: Hold | Commit | Erase) -> Erase:
    assert isinstance(verdict, Erase)
    return verdict


def test_an_open_segment_is_held() -> None:
    healer = Healer(policy())
    assert feed(healer, 9.0) == Hold()
    assert list(healer.open_tokens) == [1]


def test_tokens_left_counts_down_within_a_draw() -> None:
    healer = Healer(policy(segment={"tokens": 3}))
    seen = [healer.tokens_left]
    for surprisal in (9.0, 9.0, 9.0):
        healer.feed(1, surprisal)
        seen.append(healer.tokens_left)
    assert seen == [3, 2, 1, 3]


def test_a_calm_segment_is_committed() -> None:
    commit = committed(feed(Healer(policy()), 0.1, 0.3))
    assert (commit.segment, commit.draw.tokens, commit.attempts, commit.reason) == (0, (1, 2), 1, None)
    assert commit.draw.uncertainty.u == commit.first_u == pytest.approx(0.2)


def test_an_uncertain_segment_is_erased_with_its_reason() -> None:
    erase = erased(feed(Healer(policy()), 8.0, 8.0))
    assert (erase.segment, erase.reason, erase.draw.attempt) == (0, Reason.UNCERTAINTY, 0)
    assert erase.draw.uncertainty.u > erase.draw.threshold


def test_a_draw_exactly_at_the_threshold_is_kept() -> None:
    bar = threshold(DEFAULT_PRIOR.bar(1.0), None, DEFAULT_PRIOR, 0, policy().threshold)
    assert isinstance(feed(Healer(policy(threshold={"k": 1.0})), bar, bar), Commit)


def test_thresholds_grow_by_gamma_per_erasure_and_start_over_at_the_next_checkpoint() -> None:
    healer = Healer(policy(threshold={"gamma": 2.0, "eta": 0.0, "prior_segments": 1e6}, max_erasures=2))
    bars = [erased(feed(healer, 90.0, 90.0)).draw.threshold for _ in range(2)]
    bars.append(committed(feed(healer, 0.0, 0.0)).draw.threshold)
    assert bars == pytest.approx([bars[0], 2 * bars[0], 4 * bars[0]])
    assert committed(feed(healer, 0.0, 0.0)).draw.threshold == pytest.approx(bars[0], rel=1e-3)


def test_the_cap_forces_a_commit_of_the_last_draw() -> None:
    healer = Healer(policy(max_erasures=1))
    feed(healer, 8.0, 8.0)
    commit = committed(feed(healer, 9.0, 9.0))
    assert (commit.limit, commit.reason, commit.attempts) == (Limit.MAX_ERASURES, Reason.UNCERTAINTY, 2)
    assert (commit.draw.uncertainty.u, commit.first_u, commit.erased_tokens) == (9.0, 8.0, 2)
    assert not commit.reinserted


def test_from_the_onset_what_stands_before_the_spike_stays() -> None:
    healer = Healer(policy(segment={"tokens": 4}, erase_from="onset"))
    erase = erased(feed(healer, 0.1, 0.3, 20.0, 0.2))
    assert erase.head is not None
    assert (erase.head.segment, erase.head.draw.tokens, erase.head.attempts, erase.head.limit) == (0, (1, 2), 1, None)
    assert erase.head.draw.uncertainty.u == erase.head.first_u == pytest.approx(0.2)
    assert (erase.segment, erase.draw.tokens, erase.draw.attempt) == (1, (3, 4), 0)
    assert erase.draw.uncertainty.u == pytest.approx(10.1)
    assert (healer.segment, healer.attempt, healer.totals.committed_tokens, healer.totals.erased_tokens) == (1, 1, 2, 2)
    commit = committed(feed(healer, 0.1, 0.1, 0.1, 0.1))
    assert (commit.segment, commit.attempts, commit.first_u, commit.erased_tokens) == (
        1,
        2,
        erase.draw.uncertainty.u,
        2,
    )


@pytest.mark.parametrize("draw", [(20.0, 0.3, 0.1, 0.2), (3.0, 3.0, 3.0, 3.0)], ids=["at once", "throughout"])
def test_a_spike_at_once_takes_the_whole_segment(draw: tuple[float, ...]) -> None:
    erase = erased(feed(Healer(policy(segment={"tokens": 4}, erase_from="onset")), *draw))
    assert (erase.head, erase.draw.tokens) == (None, (1, 2, 3, 4))


def test_a_head_ends_no_streak_of_erasures() -> None:
    healer = Healer(policy(segment={"tokens": 4}, erase_from="onset", max_erasures=2))
    erases = [erased(feed(healer, 0.1, 20.0, 20.0, 20.0)) for _ in range(2)]
    assert [erase.segment for erase in erases] == [1, 2]
    assert erases[0].draw.threshold < erases[1].draw.threshold
    assert committed(feed(healer, 0.1, 20.0, 20.0, 20.0)).limit is Limit.MAX_ERASURES


def test_keep_best_brings_back_the_lowest_u() -> None:
    healer = Healer(policy(max_erasures=2, keep="best"))
    for u in (9.0, 7.0):
        feed(healer, u, u)
    commit = committed(feed(healer, 8.0, 8.0))
    assert commit.discarded is not None
    assert (commit.draw.uncertainty.u, commit.draw.attempt, commit.attempts) == (7.0, 1, 3)
    assert (commit.discarded.uncertainty.u, commit.discarded.attempt) == (8.0, 2)


def test_keep_best_keeps_an_accepted_draw_even_if_an_erased_one_was_calmer() -> None:
    healer = Healer(policy(max_erasures=2, keep="best", threshold={"gamma": 10.0}))
    feed(healer, 3.0, 3.0)
    commit = committed(feed(healer, 4.0, 4.0))
    assert (commit.reinserted, commit.limit, commit.draw.uncertainty.u) == (False, None, 4.0)


def test_keep_best_does_not_break_the_budget_to_bring_a_draw_back() -> None:
    budget = {"erased_tokens": 4, "erased_fraction": None}
    healer = Healer(policy(segment={"tokens": 6}, max_erasures=1, keep="best", budget=budget))
    feed(healer, 7.0, 7.0, closes=True)
    commit = committed(feed(healer, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0))
    assert (commit.reinserted, healer.totals.erased_tokens) == (False, 2)


@pytest.mark.parametrize(
    ("budget", "late", "limit"),
    [
        ({"erased_tokens": 1}, False, Limit.ERASED_TOKENS),
        ({"erased_fraction": 0.0}, False, Limit.ERASED_FRACTION),
        ({"deadline_ms": 5}, True, Limit.DEADLINE),
    ],
)
def test_a_spent_budget_forces_a_commit_and_is_remembered(budget: dict[str, float], late: bool, limit: Limit) -> None:
    healer = Healer(policy(budget={"erased_fraction": None, **budget}))
    assert committed(feed(healer, 9.0, 9.0, late=late)).limit == limit
    assert healer.totals.exhausted == {limit}


def test_the_cap_is_no_budget() -> None:
    healer = Healer(policy(max_erasures=0))
    assert committed(feed(healer, 9.0, 9.0)).limit == Limit.MAX_ERASURES
    assert healer.totals.exhausted == set()


def test_a_fraction_counts_the_redraw_to_come_so_a_first_segment_can_be_erased() -> None:
    healer = Healer(policy(budget={"erased_fraction": 0.5}))
    erased(feed(healer, 9.0, 9.0))
    assert committed(feed(healer, 9.0, 9.0)).limit == Limit.ERASED_FRACTION


def test_a_schedule_replaces_the_threshold_and_repeats() -> None:
    healer = Healer(policy(schedule=[1, 0]))
    verdicts = [type(feed(healer, 0.0, 99.0)) for _ in range(6)]
    assert verdicts == [Erase, Commit, Commit, Erase, Commit, Commit]


def test_shadow_commits_and_notes_what_it_would_have_erased() -> None:
    commit = committed(feed(Healer(policy(mode="shadow")), 9.0, 9.0))
    assert (commit.reason, commit.limit, commit.attempts) == (Reason.UNCERTAINTY, None, 1)


def test_off_is_not_active_and_only_on_holds() -> None:
    healers = [Healer(policy(mode=mode)) for mode in ("off", "shadow", "on")]
    assert [(healer.active, healer.holds) for healer in healers] == [(False, False), (True, False), (True, True)]


@pytest.mark.parametrize("end", ["final", "closes", "reasoning_over"])
def test_a_segment_can_end_before_its_length(end: str) -> None:
    commit = committed(Healer(policy(segment={"tokens": 50})).feed(1, 0.1, **{end: True}))
    assert commit.draw.final == (end == "final")


def test_scope_reasoning_stops_healing_where_the_reasoning_ends() -> None:
    healer = Healer(policy(scope="reasoning"))
    feed(healer, 0.1, reasoning_over=True)
    assert not healer.active


def test_an_erased_end_of_reasoning_ends_nothing() -> None:
    healer = Healer(policy(scope="reasoning", max_erasures=1, keep="best"))
    feed(healer, 7.0, 7.0)
    assert committed(feed(healer, 9.0, reasoning_over=True)).reinserted
    assert healer.active


def test_bringing_back_the_end_of_reasoning_ends_it() -> None:
    healer = Healer(policy(scope="reasoning", max_erasures=1, keep="best"))
    feed(healer, 7.0, reasoning_over=True)
    feed(healer, 9.0, 9.0)
    assert not healer.active


def test_kept_segments_shift_the_threshold_of_the_next() -> None:
    calm, wild = Healer(policy(mode="shadow")), Healer(policy(mode="shadow"))
    feed(calm, 0.1, 0.1)
    feed(wild, 9.0, 9.0)
    bars = [committed(feed(healer, 0.1, 0.1)).draw.threshold for healer in (calm, wild)]
    assert bars[0] < bars[1]


def test_a_profile_sets_the_bar_of_each_segment() -> None:
    profile = Profile(mean=(1.0, 5.0), std=(0.0, 0.0))
    healer = Healer(policy(threshold={"k": 0.0, "prior_segments": 1e6, "eta": 0.0}), profile)
    bars = [committed(feed(healer, 0.5, 0.5)).draw.threshold for _ in range(3)]
    assert bars == pytest.approx([1.0, 5.0, 5.0], rel=1e-3)


def test_the_slope_is_taken_from_the_kept_draw() -> None:
    healer = Healer(policy(max_erasures=1))
    feed(healer, 9.0, 9.0)
    feed(healer, 1.0, 1.0)
    assert committed(feed(healer, 1.5, 1.5)).draw.uncertainty.slope == 0.5


def test_history_remembers_the_draw_that_was_brought_back() -> None:
    healer, twin = Healer(policy(max_erasures=1, keep="best")), Healer(policy(mode="shadow"))
    feed(healer, 7.0, 7.0)
    assert committed(feed(healer, 9.0, 9.0)).reinserted
    feed(twin, 7.0, 7.0)
    after, expected = (committed(feed(each, 1.0, 1.0)).draw for each in (healer, twin))
    assert (after.uncertainty.slope, after.threshold) == (-6.0, expected.threshold)


def test_siblings_first_draws_make_the_group_and_oneself_does_not_count() -> None:
    group = GroupHistory()
    rule = {"threshold": {"k": 0.0, "group_weight": 1.0, "eta": 0.0, "floor": 0.0}, "max_erasures": 1}
    first, second = Healer(policy(**rule), group=group, member=0), Healer(policy(**rule), group=group, member=1)
    feed(first, 9.0, 9.0)
    feed(first, 2.0, 2.0)
    assert group.without(0, 1, lone_std=0.0) == Moments(9.0, 0.0)
    assert committed(feed(second, 8.0, 8.0)).draw.threshold == pytest.approx(9.0)
    assert group.without(0, 1, lone_std=0.0) == Moments(9.0, 0.0)
