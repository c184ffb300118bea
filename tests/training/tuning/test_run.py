"""A whole tuning against a server in this process whose best settings are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import PROFILE_NAME, Profile
from e3rl_training.evaluation.problems import load_problems
from e3rl_training.tuning.run import Settings, tune, tuned_profile
from tests.training.evaluation.fake_server import ANSWER, FakeServer

PROBLEMS = load_problems("modchain", columns={}, limit=80, seed=0)
PROFILE = Profile(mean=(1.0,), std=(0.1,), settings={"segment": {"tokens": 6}, "max_erasures": 1})


def server() -> FakeServer:
    """Half of its plain answers are right, and .95 of the healed ones where k is low, else .6."""
    made = FakeServer()
    made.healed = lambda healing: 0.95 if healing.get("threshold", {}).get("k", 1.5) < 1.0 else 0.6
    return made


def run(fake: FakeServer, folder: Path, **settings: Any) -> dict[str, Any]:
    found = Settings(**{"temperature": 1.0, "candidates": 12, "scoring": False, "samples": 2, **settings})
    return tune(PROBLEMS, found, fake.client, folder, command="e3rl tune ..", profile=PROFILE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeServer, Path, dict[str, Any]]:
    fake, folder = server(), tmp_path_factory.mktemp("whole")
    return fake, folder, run(fake, folder)


Whole = tuple[FakeServer, Path, dict[str, Any]]


def test_it_finds_what_pays(whole: Whole) -> None:
    _, folder, report = whole
    assert report["complete"] and report["found"]["threshold"]["k"] < 1.0
    assert json.loads((folder / "healing.json").read_text()) == report["found"]
    policy = Profile.load(folder / PROFILE_NAME).policy(HealingPolicy())
    assert policy.threshold.k == report["found"]["threshold"]["k"] and policy.segment.max_tokens == 6


def test_what_was_found_is_judged_on_other_problems(whole: Whole) -> None:
    """Of the held-out problems nothing is asked before the search is over."""
    fake, _, report = whole
    requests = [(one["prompt"], one["healing"]) for one in fake.requests]
    held_out = {prompt for prompt, healing in requests if "schedule" in healing}
    assert len(held_out) == report["held_out"]["problems"] == 40
    first = next(at for at, (prompt, _) in enumerate(requests) if prompt in held_out)
    searched = {prompt for prompt, _ in requests[:first]}
    assert len(searched) == report["search"]["problems"] == 40 and not searched & held_out


def test_the_rivals_on_held_out_problems(whole: Whole) -> None:
    arms = whole[2]["held_out"]["arms"]
    assert list(arms) == ["tuned", "default", "plain@1.0", "plain@0.3", "random@1.0"]
    for name, chance in {"tuned": 0.95, "default": 0.6, "plain@1.0": 0.5, "plain@0.3": 0.95}.items():
        assert arms[name]["accuracy"]["mean"] == pytest.approx(chance, abs=0.15), name
    assert arms["tuned"]["gain"]["significant"] and arms["tuned"]["gain"]["mean"] > 0.2
    assert arms["default"]["tuned_minus_this"]["significant"]
    assert arms["tuned"]["tokens"] > arms["plain@0.3"]["tokens"] == ANSWER
    assert "tuned_minus_this" not in arms["tuned"]


def test_the_report_states_the_curse_of_the_winner(whole: Whole) -> None:
    text = (whole[1] / "report.md").read_text()
    assert "of 12 settings tried" in text and "The first is the best of\n12, and flattered by that" in text
    assert "- Tuned is better than default." in text and "| 10 | 12 |" in text


def test_a_server_that_dies_loses_nothing(whole: Whole, tmp_path: Path) -> None:
    fake = server()
    fake.dies_after = 150
    with pytest.raises(EvaluationError, match="stopped answering"):
        run(fake, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == {"complete": False}
    fake.dies_after = None
    report = run(fake, tmp_path)
    assert len(fake.requests) == len(whole[0].requests)
    for part in ("found", "search", "held_out"):
        assert report[part] == whole[2][part]


def test_a_tuning_that_finds_nothing_better_says_so(tmp_path: Path) -> None:
    fake = FakeServer()
    fake.healed = lambda _: 0.9
    report = run(fake, tmp_path, candidates=3)
    assert report["found"] == {} and report["held_out"]["arms"]["default"]["tuned_minus_this"]["mean"] == 0.0
    text = (tmp_path / "report.md").read_text()
    assert "the settings that the server has already" in text and "not to be told from default" in text


def test_too_few_problems(tmp_path: Path) -> None:
    few = type(PROBLEMS)("few", PROBLEMS.asked[:15], 36)
    settings = Settings(temperature=1.0, candidates=3, scoring=False)
    with pytest.raises(EvaluationError, match=r"--limit: 15 problems are too few"):
        tune(few, settings, FakeServer().client, tmp_path, command="", profile=None)


def test_a_profile_keeps_its_moments() -> None:
    found = {"threshold": {"k": 0.5}, "keep": "best", "retry": {"temperature": 0.4}}
    tuned = tuned_profile(PROFILE, found, "e3rl tune ..")
    assert (tuned.mean, tuned.std) == (PROFILE.mean, PROFILE.std) and tuned.provenance["tuned"] == "e3rl tune .."
    policy = tuned.policy(HealingPolicy())
    assert (policy.threshold.k, policy.keep, policy.retry.temperature, policy.max_erasures) == (0.5, "best", 0.4, 1)
    tuned.check_scores_alike(PROFILE.policy(HealingPolicy()), "profile.json")
