"""Arms by name, and what each asks of a server."""

from __future__ import annotations

from typing import Any

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_training.evaluation.arms import DEFAULT, KINDS, Source, parse_arms, schedule, sources_of
from e3rl_training.evaluation.rules import RULES


def test_names_are_whole() -> None:
    names = [arm.name for arm in parse_arms("plain,healed,greedy,majority:3,best:4@0.7,agree:5@healed@0.7, plain@1")]
    assert names == ["plain@1.0", "healed@1.0", "greedy", "majority:3@1.0", "best:4@0.7", "agree:5@healed@0.7"]
    names = [arm.name for arm in parse_arms("lookahead:3,lookahead:2@0.7,agree:5@lookahead:4@0.7")]
    assert names == ["lookahead:3@1.0", "lookahead:2@0.7", "agree:5@lookahead:4@0.7"]


def test_every_kind_that_goes_with_any_data_is_a_default_arm() -> None:
    arms = parse_arms(DEFAULT)
    assert {arm.source.kind for arm in arms} == {kind for kind in KINDS if not Source(kind, 1.0).labelled}
    assert {arm.rule for arm in arms} == {None, *RULES}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cool", "there is no arm 'cool'; there are plain, greedy"),
        ("plain:3", "there is no arm 'plain:3'"),
        ("plain@hot", "'hot' is neither a number nor a source"),
        ("plain@0", "above 0 and at most 2"),
        ("top_p@1.5", "at most 1.0"),
        ("greedy@0.5", "has no number to set"),
        ("majority:1", "a number of draws from 2 to 64"),
        ("majority", "a number of draws from 2 to 64"),
        ("lookahead@0.7", "a number of draws from 2 to 64, e.g. lookahead:4@0.7"),
        ("agree:3@healed:2", "there is no arm 'healed:2'"),
        ("agree:3@greedy", "draws the same answer every time"),
        ("forked:3@healed", "only plain sampling can be forked; write e.g. forked:3@0.7"),
        (" , ", "names no arm"),
    ],
)
def test_wrong_arms(text: str, why: str) -> None:
    with pytest.raises(EvaluationError, match="--arms") as raised:
        parse_arms(text)
    assert why in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "sampling", "healing"),
    [
        (Source("plain", 0.7), {"temperature": 0.7, "top_p": 1.0, "min_p": 0.0}, {"mode": "shadow"}),
        (Source("greedy", None), {"temperature": 0.0}, {"mode": "shadow"}),
        (Source("top_p", 0.9), {"temperature": 1.0, "top_p": 0.9}, {"mode": "shadow"}),
        (Source("min_p", 0.1), {"temperature": 1.0, "min_p": 0.1}, {"mode": "shadow"}),
        (Source("healed", 0.7), {"temperature": 0.7}, {"mode": "on"}),
        (Source("oracle", 0.7), {"temperature": 0.7}, {"mode": "shadow"}),
        (Source("onset", 0.7), {"temperature": 0.7}, {"mode": "on", "erase_from": "onset"}),
        (Source("lookahead", 0.7, 3), {"temperature": 0.7}, {"mode": "shadow"}),
        (Source("retry_cool", 1.0), {"temperature": 1.0}, {"mode": "on", "retry": {"temperature": 0.3}}),
        (Source("random", 1.0), {"temperature": 1.0}, {"mode": "on", "schedule": schedule(0.2, 7)}),
    ],
)
def test_what_a_request_says(source: Source, sampling: dict[str, float], healing: dict[str, Any]) -> None:
    assert sampling.items() <= source.sampling().items()
    assert source.healing({"max_erasures": 2}, 0.2, 7) == {"max_erasures": 2, **healing}
    HealingPolicy().updated(source.healing({}, 0.2, 7))


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_a_random_schedule_erases_at_the_rate(rate: float) -> None:
    entries = [entry for seed in range(200) for entry in schedule(rate, seed)]
    assert sum(entries) / (sum(entries) + len(entries)) == pytest.approx(rate, abs=0.01)


def test_a_random_schedule_is_seeded() -> None:
    assert schedule(0.3, 1) == schedule(0.3, 1) != schedule(0.3, 2)
    assert schedule(0.0, 1) == [0]


def test_the_source_whose_rate_is_copied_comes_first() -> None:
    assert [source.name for source in sources_of(parse_arms("random,plain"))] == [
        "healed@1.0",
        "plain@1.0",
        "random@1.0",
    ]
