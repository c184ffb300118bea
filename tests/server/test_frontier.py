from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from e3rl_core.events import BudgetOp, DraftedOp, Op
from e3rl_core.healer import Limit
from e3rl_server.frontier import ChoiceTrack, PendingEvent
from tests.server.test_metrics import committed, erased


@dataclass
class FakeChoice:
    """A choice whose tokens are code points."""

    text: str = ""
    withheld: int = 0
    finished: bool = False
    token_ids: list[int] = field(default_factory=list)

    @property
    def released_chars(self) -> int:
        return max(0, len(self.text) - self.withheld)

    def draft_decoder(self) -> Callable[[int], str]:
        return chr


def drafted(text: str, segment: int = 0, attempt: int = 0) -> DraftedOp:
    return DraftedOp(segment=segment, attempt=attempt, token_ids=[ord(char) for char in text])


def track() -> ChoiceTrack:
    return ChoiceTrack(choice=0, live=True, withholds=True)


def kinds(events: Sequence[PendingEvent]) -> list[str]:
    return [event.numbered(0)["type"].removeprefix("segment.") for event in events]


def fed(following: ChoiceTrack, choice: FakeChoice, *ops: Op) -> list[PendingEvent]:
    following.feed(choice, ops)
    return following.take_due(forced=True)


def test_a_segment_in_events() -> None:
    following, choice = track(), FakeChoice()
    events = fed(following, choice, drafted("no"), erased(), drafted("yes", attempt=1))
    assert kinds(events) == ["started", "delta", "erased", "delta"]
    choice.text = "yes"
    (commit,) = fed(following, choice, committed())
    assert commit.fields["chars"] == 3
    assert commit.fields["text"] is None
    assert following.frontier == 3


def test_text_withheld_for_a_stop_string_carries_over() -> None:
    following, choice = track(), FakeChoice(text="hello", withheld=2)
    fed(following, choice, drafted("hello"), committed())
    assert following.frontier == 3
    _, delta = fed(following, choice, drafted("!", segment=1))
    assert (delta.fields["start_char"], delta.fields["text"]) == (3, "lo!")


def test_another_draw_than_the_one_shown_is_sent_in_full() -> None:
    following, choice = track(), FakeChoice()
    fed(following, choice, drafted("best"), erased(), drafted("last", attempt=1))
    choice.text = "best"
    (commit,) = fed(following, choice, committed(attempt=0))
    assert (commit.fields["text"], commit.fields["attempt"]) == ("best", 0)


def test_what_is_erased_from_its_onset_was_shown_with_its_head() -> None:
    following, choice = track(), FakeChoice(text="so ")
    tail = [drafted("far", segment=1), erased(segment=1)]
    events = fed(following, choice, drafted("so far"), committed(), *tail, drafted("good", segment=1, attempt=1))
    assert kinds(events) == ["started", "delta", "committed", "started", "delta", "erased", "delta"]
    commit, gone, redraw = events[2], events[4], events[6]
    assert (commit.fields["chars"], commit.fields["text"]) == (3, None)
    assert (gone.fields["start_char"], gone.fields["text"]) == (3, "far")
    assert (redraw.fields["start_char"], redraw.fields["attempt"], redraw.fields["text"]) == (3, 1, "good")


def test_a_lagging_client_gets_one_delta_for_many_tokens() -> None:
    following, choice = track(), FakeChoice()
    for char in "abc":
        following.feed(choice, [drafted(char)])
    events = following.take_due(forced=True)
    assert kinds(events) == ["started", "delta"]
    assert events[1].fields["text"] == "abc"


def test_a_budget_says_which() -> None:
    (event,) = fed(track(), FakeChoice(), BudgetOp(budget=Limit.DEADLINE))
    assert event.numbered(4)["budget"] == "deadline_ms"
    assert event.numbered(4)["seq"] == 4


def test_reasoning_is_another_channel_until_it_is_over() -> None:
    following, choice = track(), FakeChoice()
    following.reasoning_over = lambda ids: 7 in ids
    assert {event.fields["channel"] for event in fed(following, choice, drafted("hm"))} == {"reasoning"}
    choice.token_ids = [7]
    assert {event.fields["channel"] for event in fed(following, choice, committed())} == {"reasoning"}
    assert {event.fields["channel"] for event in fed(following, choice, drafted("so", segment=1))} == {"content"}


def test_erased_tokens_of_an_open_segment_count() -> None:
    following = ChoiceTrack(choice=0, live=False, withholds=True)
    following.feed(FakeChoice(), [erased()])
    assert following.tally.erased_tokens == 8
    following.feed(FakeChoice("x"), [committed()])
    assert following.tally.erased_tokens == 8
