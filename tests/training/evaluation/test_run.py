"""A whole evaluation against a server in this process: figures that are known, resuming, and what stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_training.evaluation import client
from e3rl_training.evaluation.arms import DEFAULT, parse_arms
from e3rl_training.evaluation.problems import load_problems
from e3rl_training.evaluation.run import Settings, evaluate
from tests.training.evaluation.fake_server import ANSWER, SEGMENT, FakeServer

PROBLEMS = load_problems("modchain", columns={}, limit=60, seed=0)
ARMS = f"{DEFAULT},oracle"


def run(server: FakeServer, folder: Path, arms: str = DEFAULT, **settings: Any) -> dict[str, Any]:
    found = Settings(arms=parse_arms(arms), **{"samples": 2, "concurrency": 4, **settings})
    return evaluate(PROBLEMS, found, server.client, folder, "e3rl eval ..")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeServer, Path, dict[str, Any]]:
    server, folder = FakeServer(), tmp_path_factory.mktemp("whole")
    return server, folder, run(server, folder, ARMS)


def test_every_arm_has_its_figures(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    """The server's answers are known by chance: half are right at temperature 1, nine tenths healed, .95 cooler."""
    measured = whole[2]["measured"]
    arms = measured["arms"]
    assert list(arms) == [arm.name for arm in parse_arms(ARMS)]
    assert measured["problems"] == 48 and measured["calibration_problems"] == 12
    for name, chance in {
        "plain@1.0": 0.5,
        "plain@0.7": 0.95,
        "greedy": 0.95,
        "healed@1.0": 0.9,
        "random@1.0": 0.5,
        "oracle@1.0": 1 - 0.5**3,
        "onset@1.0": 0.9,
        "lookahead:3@1.0": 1 - 0.5**3,
    }.items():
        assert arms[name]["accuracy"]["mean"] == pytest.approx(chance, abs=0.13), name
    assert arms["majority:5@1.0"]["accuracy"]["mean"] > arms["plain@1.0"]["accuracy"]["mean"]
    assert arms["best:4@1.0"]["accuracy"]["mean"] > 0.85  # the server's likelihoods tell right from wrong
    assert arms["gated:5@1.0"]["draws"] < arms["agree:5@1.0"]["draws"] < 5
    assert arms["forked:5@1.0"]["accuracy"]["mean"] == pytest.approx(arms["gated:5@1.0"]["accuracy"]["mean"], abs=0.13)
    assert arms["confident:5@1.0"]["tokens"] < 5 * ANSWER
    assert arms["healed@1.0"]["minus_plain"]["significant"] and arms["healed@1.0"]["minus_plain"]["mean"] > 0.2


def test_tokens_count_what_was_erased(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    measured = whole[2]["measured"]
    arms = measured["arms"]
    assert arms["plain@1.0"]["tokens"] == ANSWER and arms["majority:5@1.0"]["tokens"] == 5 * ANSWER
    healed = arms["healed@1.0"]
    assert healed["tokens"] == pytest.approx(healed["committed_tokens"] + healed["erased_tokens"], abs=0.01)
    assert 0 < healed["erased_tokens"] < 6
    rates = measured["erase_rates"]
    assert rates["random@1.0"] == pytest.approx(rates["healed@1.0"], abs=0.03)
    assert arms["oracle@1.0"]["erased_tokens"] == pytest.approx(SEGMENT * (0.5 + 0.25), abs=1.5)
    assert arms["lookahead:3@1.0"]["erased_tokens"] == pytest.approx(SEGMENT * 0.5 * 2, abs=1.5)


def test_other_temperatures_are_compared_with_each_other(tmp_path: Path) -> None:
    report = run(FakeServer(), tmp_path, "greedy,plain@0.7,healed@0.7,plain@0.3")
    measured = report["measured"]
    assert measured["compared_with"] == {"minus_plain": "plain@0.7", "minus_healed": "healed@0.7"}
    assert "minus_plain" in measured["arms"]["greedy"] and "minus_plain" not in measured["arms"]["plain@0.7"]
    assert set(measured["at_healed_tokens"]["rivals"]) == {"greedy", "plain@0.7", "plain@0.3"}
    assert "| minus plain@0.7 | minus healed@0.7 |" in (tmp_path / "report.md").read_text()
    assert "At the tokens of healed@0.7" in (tmp_path / "report.md").read_text()


def test_forks_pay_for_what_they_do_not_share(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    """They fork at the last step, the least certain one, and only where the draw's mean U is above the gate."""
    server, _, report = whole
    forked = report["measured"]["arms"]["forked:5@1.0"]
    assert 1 < forked["draws"] < 5
    assert forked["tokens"] == pytest.approx(ANSWER + SEGMENT * (forked["draws"] - 1), abs=0.05)
    ends = [one for one in server.requests if isinstance(one["prompt"], list)]
    assert ends and all(one["max_tokens"] == SEGMENT and one["healing"]["mode"] == "shadow" for one in ends)
    drawn = [one for one in map(json.loads, (whole[1] / "samples.jsonl").read_text().splitlines()) if one["forks"]]
    gate = report["measured"]["thresholds"]["plain@1.0"]["gate"]
    assert drawn and all(one["source"] == "plain@1.0" and one["u"] > gate for one in drawn)
    assert all(fork["text"][:-1] == one["text"][:-1] for one in drawn for fork in one["forks"])


def test_rivals_are_brought_to_the_price_of_healing(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    measured = whole[2]["measured"]
    equal = measured["at_healed_tokens"]
    vote, curve = equal["rivals"]["majority:N@1.0"], measured["curves"]["majority:N@1.0"]
    assert vote["tokens"] == equal["tokens"] == measured["arms"]["healed@1.0"]["tokens"]
    share = (equal["tokens"] - ANSWER) / (curve[1]["tokens"] - ANSWER)
    mixed = curve[0]["accuracy"] + share * (curve[1]["accuracy"] - curve[0]["accuracy"])
    assert vote["accuracy"] == pytest.approx(mixed, abs=2e-4)
    assert equal["rivals"]["greedy"]["tokens"] == ANSWER
    assert not any("healed" in name for name in equal["rivals"])


def test_draws_of_a_pool_are_paid_once(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    server, _, _ = whole
    plain = [one for one in server.requests if one["healing"]["mode"] == "shadow" and one["temperature"] == 1.0]
    stock = [one for one in plain if one["top_p"] == 1.0 and one["min_p"] == 0.0 and isinstance(one["prompt"], str)]
    continued = 2 * 2 * 48
    assert len(stock) == 5 * 48 + 12 + continued
    first = {(one["prompt"], one["seed"]) for one in stock}
    assert len(first) == len(stock) - continued, "those of oracle and lookahead are plain's"


def test_segments_are_graded_where_steps_are_known(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    """The server flags the last step of every wrong answer, and heals where it would have been wrong."""
    _, folder, report = whole
    graded = report["measured"]["segments"]
    plain = graded["plain@1.0"]
    assert plain["segments"] == 6 * 5 * 48 and plain["flagged"] == plain["wrong"] == plain["first_wrong"] > 0
    assert plain["precision"]["mean"] == plain["recall"]["mean"] == 1.0
    healed = graded["healed@1.0"]
    assert healed["precision"]["mean"] == healed["recall"]["mean"] == 1.0
    assert healed["wrong"] < healed["flagged"] and graded["random@1.0"]["recall"]["mean"] < 1.0
    assert "## Segments against their labels" in (folder / "report.md").read_text()
    assert (folder / "segments.png").exists()


def test_the_first_text_of_some_answers_is_timed(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    latency = whole[2]["run"]["latency"]
    assert latency["plain@0.7"]["answer"]["answers"] == 2 * 48
    assert latency["plain@0.7"]["first_token"]["answers"] == 20
    assert {name for name, found in latency.items() if "first_token" not in found} == {"oracle@1.0", "lookahead:3@1.0"}
    for found in (found for found in latency.values() if "first_token" in found):
        assert found["first_token"]["median"] <= found["first_committed"]["median"] <= found["answer"]["p95"]


def test_the_report_is_there_and_says_the_same(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    _, folder, report = whole
    assert json.loads((folder / "report.json").read_text()) == report and report["complete"]
    text = (folder / "report.md").read_text()
    assert "# Evaluation of fake on modchain" in text and "| gated:5@1.0 |" in text and "At the tokens of" in text
    assert {"accuracy.png", "uncertainty.png"} <= {path.name for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_report(whole: tuple[FakeServer, Path, dict[str, Any]], tmp_path: Path) -> None:
    again = run(FakeServer(), tmp_path, ARMS, concurrency=1)
    for part in ("settings", "measured"):
        assert json.dumps(again[part]) == json.dumps(whole[2][part])
    other = run(FakeServer(), tmp_path / "other", ARMS, seed=1)
    assert other["measured"] != again["measured"]


def test_a_server_that_dies_loses_nothing(whole: tuple[FakeServer, Path, dict[str, Any]], tmp_path: Path) -> None:
    """It dies twice, once with the older report of a complete run in the folder."""
    arms = "plain,healed,random,gated:5,confident:5"
    reference = FakeServer()
    uninterrupted = run(reference, tmp_path / "uninterrupted", arms)
    server, folder = FakeServer(), tmp_path / "interrupted"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(whole[2]))
    of = len(reference.requests)
    for alive in (100, 300):
        server.dies_after = alive
        with pytest.raises(EvaluationError, match=rf"stopped answering .*; {alive} of {of} samples are in"):
            run(server, folder, arms)
        assert json.loads((folder / "report.json").read_text()) == {"complete": False, "samples": alive, "of": of}
        assert f"{alive} of {of}" in (folder / "report.md").read_text()
    server.dies_after = None
    report = run(server, folder, arms)
    assert len(server.requests) == of
    assert report["measured"] == uninterrupted["measured"]


def test_answers_with_several_ends_are_gone_on_with(tmp_path: Path) -> None:
    """A sample is there when all its requests are; one that was under way is asked for again from its start."""
    arms = "forked:4,oracle,lookahead:3"
    reference, server = FakeServer(), FakeServer()
    uninterrupted = run(reference, tmp_path / "uninterrupted", arms)
    whole = len(reference.requests)
    for alive in range(60, whole, 60):
        server.dies_after = alive
        with pytest.raises(EvaluationError, match="stopped answering"):
            run(server, tmp_path, arms)
    server.dies_after = None
    assert run(server, tmp_path, arms)["measured"] == uninterrupted["measured"]
    assert whole <= len(server.requests) < 1.3 * whole


def test_a_folder_of_other_settings(whole: tuple[FakeServer, Path, dict[str, Any]]) -> None:
    with pytest.raises(EvaluationError, match=r"holds samples with seed 0, this run has 5"):
        run(FakeServer(), whole[1], ARMS, seed=5)


def test_a_chat(tmp_path: Path) -> None:
    asked = [type(one)([{"role": "user", "content": str(one.prompt)}], one.answer, one.task) for one in PROBLEMS.asked]
    settings = Settings(arms=parse_arms("plain,healed,forked:3"), samples=1)
    server = FakeServer()
    report = evaluate(type(PROBLEMS)("chat", asked, 36), settings, server.client, tmp_path, "")
    assert report["measured"]["arms"]["plain@1.0"]["accuracy"]
    chats = [one for one in server.requests if "messages" in one]
    assert len(chats) == 2 * 48 + 12 and len(server.requests) > len(chats), "forks are no chats any more"


def test_a_full_server_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None: ...

    monkeypatch.setattr(client.asyncio, "sleep", at_once)
    server = FakeServer()
    server.full = 5
    assert run(server, tmp_path, "greedy")["complete"]


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ('data: {"error": {"message": "engine dead"}}\n\n', "the server broke off its answer: engine dead"),
        ("data: [DONE]\n\n", "the server broke off its answer, or does not tell its usage"),
    ],
)
def test_a_stream_that_breaks_off(end: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    monkeypatch.setattr("tests.training.evaluation.fake_server._stream", lambda *_: end)
    with pytest.raises(EvaluationError, match=why):
        run(server, tmp_path, "plain")


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        ("plain,healed", "healed@1.0: the server does not heal"),
        ("gated:3", "does not tell uncertainty"),
        ("forked:3", "does not tell uncertainty"),
        ("lookahead:2", "http://fake does not tell its settings at /version"),
        ("oracle", "http://fake does not tell its settings at /version"),
    ],
)
def test_a_server_without_healing(arms: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=why):
        run(FakeServer(heals=False), tmp_path, arms)


def test_an_oracle_needs_labels(tmp_path: Path) -> None:
    unlabelled = replace(PROBLEMS, title="mine.jsonl", asked=[replace(one, task=None) for one in PROBLEMS.asked])
    settings = Settings(arms=parse_arms("plain,oracle"))
    with pytest.raises(EvaluationError, match=r"--arms: oracle@1.0 needs problems whose steps are known .* mine.jsonl"):
        evaluate(unlabelled, settings, FakeServer().client, tmp_path, "")


def test_stock_arms_need_no_healing_server(tmp_path: Path) -> None:
    report = run(FakeServer(heals=False), tmp_path, "plain,majority:3")
    assert report["measured"]["uncertainty"] == {} and report["measured"]["at_healed_tokens"] == {}


def test_a_refused_request_is_told(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"the server answered 400: healing.max_erasures: too many"):
        run(FakeServer(), tmp_path, healing={"max_erasures": 63})


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"--url: no server answers at http://127.0.0.1:9"):
        evaluate(
            PROBLEMS, Settings(parse_arms("plain")), lambda: client.open_client("http://127.0.0.1:9", 1), tmp_path, ""
        )
