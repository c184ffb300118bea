"""Rewards as TRL calls them: what they say of a completion, and what they say when they cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from e3rl_core.errors import RewardError
from e3rl_training.rewards import Reward, RewardSpec, exact, reward_functions


@pytest.fixture(scope="module")
def maths() -> Iterator[Reward]:
    (made,) = reward_functions([RewardSpec(name="maths", timeout=20.0)])
    yield made
    made.close()


@pytest.fixture
def reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reward]]:
    """Makes rewards, from specs or the source of a function `score`, and ends their processes."""
    made: list[Reward] = []

    def make(source: str | None = None, **spec: Any) -> Reward:
        if source is not None:
            (tmp_path / "mine_of_test.py").write_text(source, "utf-8")
            monkeypatch.syspath_prepend(tmp_path)
            spec["name"] = "mine_of_test:score"
        made.extend(reward_functions([RewardSpec(**spec)]))
        return made[-1]

    yield make
    for one in made:
        one.close()


def score(function: Reward, completion: Any, answer: Any = "") -> float | None:
    (value,) = function(prompts=["?"], completions=[completion], answer=[answer])
    return value


@pytest.mark.parametrize(
    ("completion", "answer", "worth"),
    [
        ("The answer is 0.5", "1/2", 1.0),
        (r"so \boxed{\frac12}", "0.5", 1.0),
        (r"\boxed{\frac{1}{3}}", "0.5", 0.0),
        ("48+24 = <<48+24=72>>72 clips\n#### 72", "72", 1.0),
        ("left because 60 - 60 = <<60-60=0>>0\n#### 0\n", "0", 1.0),
        ("#### Sum\nIt is 5.", "5", 1.0),
        (r"\boxed{72}", "in all 72 clips.\n#### 72", 1.0),
        (r"\boxed{1234}", "1,234", 1.0),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", 1.0),
        (r"$\frac{2}{4}$", r"$\frac{1}{2}$", 1.0),
        (r"\boxed{2}", r"\boxed{2}", 1.0),
        (r"first \boxed{3}, no, it is 4", "3", 1.0),
        (r"\boxed{No}", "Yes", 0.0),
        ("no idea", "18", 0.0),
        (r"\boxed{\frac{1}{", "18", 0.0),
        ("", "18", 0.0),
        ("18", "", 0.0),
    ],
)
def test_maths_compares_values(maths: Reward, completion: str, answer: str, worth: float) -> None:
    assert score(maths, completion, answer) == worth


def test_maths_without_end_counts_as_wrong(
    reward: Callable[..., Reward], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    function = reward(name="maths", timeout=1.0)
    completions = [r"\boxed{7^{7^{7^{7^7}}}}", r"\boxed{8^{8^{8^{8^8}}}}", "7"]
    with caplog.at_level(logging.DEBUG):
        assert function(["?"] * 3, completions, answer=["7"] * 3) == [0.0, 0.0, 1.0]
    assert function.unanswered == 2
    (record,) = caplog.records
    assert "rewards.maths" in record.getMessage()
    assert "boxed" not in caplog.text
    assert "".join(capfd.readouterr()) == ""  # the worker's stderr, where libraries log


@pytest.mark.parametrize(
    ("completion", "answer", "worth"),
    [
        ("7+8=5;5*3=5;5-1=4", "4", 1.0),
        ("7+8=5;5*3=5;5-1=4;", "4", 1.0),
        ("7+8=5;5*3=5;5-1=", "4", 0.0),
        ("7+8=5;5*3=4;5-", "4", 0.0),
        ("48/2=24, so\n#### 24. \n", "24", 1.0),
        (" Paris.\n", "Paris", 1.0),
        ("It is Paris", "Paris", 0.0),
        ("x=14", "4", 0.0),
        ("4", "x=4", 1.0),
        ("", "4", 0.0),
    ],
)
def test_exact_compares_final_answers_as_text(completion: str, answer: str, worth: float) -> None:
    assert exact(completion, answer) == worth


@pytest.mark.parametrize(
    ("completion", "worth"),
    [
        ("<think>two\nand two</think>\nfour", 1.0),
        ("two and two</think> four", 1.0),
        (r"So it is \boxed{4}." + "\n", 1.0),
        ("<think>two and two", 0.0),
        ("<think>two and two</think>  ", 0.0),
        (r"So it is \boxed{}", 0.0),
        ("four", 0.0),
    ],
)
def test_format_asks_for_closed_thinking_or_a_box(reward: Callable[..., Reward], completion: str, worth: float) -> None:
    assert reward(name="format")(["?"], [completion]) == [worth]  # needs no answer


def test_format_matches_the_whole_completion(reward: Callable[..., Reward]) -> None:
    function = reward(name="format", pattern="<a>.*</a>")
    assert function(["?"] * 3, ["<a>\n</a>", "<a></a>.", "x"]) == [1.0, 0.0, 0.0]


def test_a_pattern_without_end_counts_as_wrong(reward: Callable[..., Reward]) -> None:
    function = reward(name="format", pattern="(a+)+b", timeout=0.5)
    assert function(["?"] * 2, ["a" * 40, "aab"]) == [0.0, 1.0]
    assert function.unanswered == 1


@pytest.mark.parametrize(
    ("completion", "worth"),
    [
        ([{"role": "assistant", "content": "1+1=2"}], 1.0),
        ([{"role": "assistant", "content": "1+1=3"}, {"role": "assistant", "content": "2"}], 1.0),
        ([{"role": "assistant", "content": [{"type": "text", "text": "2"}]}], 1.0),
        ([{"role": "assistant", "content": None, "tool_calls": []}], 0.0),
        ([], 0.0),
    ],
)
def test_the_last_message_of_a_conversation_counts(completion: Any, worth: float) -> None:
    (function,) = reward_functions([RewardSpec(name="exact")])
    assert score(function, completion, 2) == worth


def test_trl_passes_more_than_we_need(reward: Callable[..., Reward]) -> None:
    function = reward("def score(completion, answer):\n    return len(completion) + len(answer)\n")
    given = function(
        prompts=["?", "?"],
        completions=["four", ""],
        completion_ids=[[1], []],
        answer=["2", "33"],
        trainer_state=None,
        log_metric=print,
    )
    assert given == [5.0, 2.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError(completion)", r"raised KeyError: 'a completion' \(mine_of_test\.py, line 2\); it must return"),
        ("return completion", "returned a value of type str; it must return a finite number"),
        ("pass", "returned a value of type NoneType; it must return a finite number"),
        ("while True: pass", r"took more than 0\.5 s on a completion; make it faster or raise rewards\.timeout"),
        ("import os; os._exit(1)", r"ended its process \(exit status 1\); it must return a number instead"),
    ],
)
def test_a_function_that_fails_is_one_readable_error(reward: Callable[..., Reward], body: str, message: str) -> None:
    function = reward(f"def score(completion, answer):\n    {body}\n", timeout=0.5)
    with pytest.raises(RewardError, match=rf"^rewards\.mine_of_test:score: {message}"):
        score(function, "a completion")


def test_a_function_that_is_not_there_fails_before_training() -> None:
    with pytest.raises(RewardError, match=r"^rewards\.no_such_package:score: cannot be imported \(ModuleNotFoundError"):
        reward_functions([RewardSpec(name="no_such_package:score")])


@pytest.mark.parametrize("name", ["maths", "exact"])
def test_a_missing_answer_column_is_named(maths: Reward, name: str) -> None:
    function = maths if name == "maths" else reward_functions([RewardSpec(name="exact")])[0]
    with pytest.raises(RewardError, match=rf"^rewards\.{name}: the data has no column answer"):
        function(prompts=["?"], completions=["4"], solution=["4"])


def test_names_differ() -> None:
    functions = reward_functions([RewardSpec(name="exact"), RewardSpec(name="exact", weight=0.5)])
    assert [function.__name__ for function in functions] == ["exact", "exact_2"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "math"}, "there is no reward 'math'; use maths, exact, format or package.module:function"),
        ({"name": "package.module"}, "there is no reward 'package.module'"),
        ({"name": "format", "pattern": "(a"}, r"pattern\n.*is no regular expression \(missing \)"),
        ({"name": "maths", "pattern": "a"}, "pattern goes with the reward format, not with maths"),
        ({"name": "exact", "timeout": 0}, "timeout\n.*greater than 0"),
        ({"name": "exact", "weight": float("nan")}, "weight\n.*finite number"),
        ({"name": "exact", "wieght": 1.0}, "wieght\n.*not permitted"),
    ],
)
def test_what_cannot_be_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RewardSpec(**spec)
