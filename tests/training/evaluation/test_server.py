"""A server of its own: that it starts, and what is said where it does not; then real engines."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from e3rl_core.errors import EvaluationError
from e3rl_training import warmup
from e3rl_training.evaluation import cli
from e3rl_training.evaluation.arms import Source
from e3rl_training.evaluation.client import Server, open_client
from e3rl_training.evaluation.continuing import joined, other_end
from e3rl_training.evaluation.problems import load_problems
from e3rl_training.evaluation.server import served

FLAGS = ("--dtype", "float32", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "64M")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that barely knows its task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(warmup.POLICIES, "modchain-s1", replace(warmup.POLICIES["modchain-s1"], updates=5))
        return warmup.starting_policy("modchain-s1", tmp_path_factory.mktemp("policies"), 0)


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with (
        pytest.raises(EvaluationError, match=r"--model: the server did not start: .*no such folder"),
        served(nowhere, (), tmp_path / "log"),
    ):
        pass


@pytest.mark.engine
@pytest.mark.slow
def test_from_nothing_to_a_report_in_one_command(policy: Path, tmp_path: Path) -> None:
    """Sources of all kinds on vLLM, with rules over them."""
    out = tmp_path / "out"
    argv = ["--model", str(policy), "--data", "modchain", "--limit", "12", "--samples", "2", "-o", str(out)]
    arms = (
        "plain,greedy,top_p,min_p,healed,random,retry_cool,oracle,gated:2,forked:3,confident:2,best:2,majority:2@healed"
    )
    healing = '{"segment": {"tokens": 6}, "threshold": {"k": 0.0}, "max_erasures": 1}'
    assert cli.main([*argv, "--arms", arms, "--healing", healing, "--", *FLAGS]) == 0
    report = json.loads((out / "report.json").read_text())
    measured = report["measured"]
    assert measured["arms"]["plain@1.0"]["tokens"] > 5 and measured["arms"]["plain@1.0"]["erased_tokens"] == 0
    assert measured["arms"]["oracle@1.0"]["erased_tokens"] > 5, "it is wrong nearly everywhere, and redraws once"
    assert 1 < measured["arms"]["forked:3@1.0"]["draws"] < 3
    rates = measured["erase_rates"]
    assert 0 < rates["random@1.0"] < rates["healed@1.0"] + 0.1
    assert all(found["reliability"] for found in measured["uncertainty"].values())


@pytest.mark.engine
@pytest.mark.slow
def test_greedy_again_from_any_segment_gives_the_same_answer(policy: Path, tmp_path: Path) -> None:
    """What was kept goes back as the tokens it was: the model stands where it stood."""
    greedy = Source("greedy", None)

    async def go_on(url: str) -> None:
        async with open_client(url, 1) as http:
            server = Server(http, {"segment": {"tokens": 6}})
            await server.connect()
            assert (await server.policy()).max_erasures == 3
            for asked in load_problems("modchain", columns={}, limit=4, seed=0).asked:
                drawn = await server.draw(greedy, asked.prompt, room=36, rate=0.0, seed=0, ids=True)
                for at in range(len(drawn.segments)):
                    end = await other_end(server, greedy, drawn, at, room=36, seed=0)
                    whole = joined(drawn, at, end)
                    assert (whole.text, whole.ids) == (drawn.text, drawn.ids)
                    assert [one.chars for one in whole.segments] == [one.chars for one in drawn.segments]

    with served(str(policy), FLAGS, tmp_path / "log") as url:
        asyncio.run(go_on(url))
