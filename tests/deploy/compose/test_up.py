"""The Compose project, really up: the server heals and drains, Prometheus scrapes it and evaluates the rules.

Without Grafana, whose image cannot be had everywhere; test_compose.py reads its part.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.deploy.compose.test_compose import FOLDER, PROJECT
from tests.deploy.docker.container import (
    IMAGE,
    START_TIMEOUT,
    URL,
    check_that_a_stream_survives,
    inspect,
    needs_image,
)
from tests.deploy.helm.test_served import smoke
from tests.deploy.monitoring.test_rules import names
from tests.deploy.monitoring.test_scrape import Prometheus, eventually
from tests.deploy.tools import run

pytestmark = [
    pytest.mark.engine,
    needs_image,
    pytest.mark.skipif(IMAGE not in ("", PROJECT["services"]["server"]["image"]), reason="Compose runs another image"),
]

#: A machine with little memory: the KV cache's GiB, which vLLM else takes from what is free.
SMALL = {"services": {"server": {"environment": {"VLLM_CPU_KVCACHE_SPACE": "1"}}}}

Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Commands of a project whose server and Prometheus are up."""
    small = tmp_path_factory.mktemp("compose") / "small.yaml"
    small.write_text(yaml.safe_dump(SMALL), "utf-8")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = run("docker-compose", "--file", FOLDER / "compose.yaml", "--file", small, *arguments)
        assert done.returncode == 0, done.stderr
        return done

    try:
        command("up", "--no-build", "--wait", "--wait-timeout", str(int(START_TIMEOUT)), "server", "prometheus")
        yield command
    finally:
        command("down", "--volumes")


@pytest.mark.parametrize("check", ["models", "completion", "healing", "metrics"])
def test_the_server_answers(compose: Compose, check: str) -> None:
    done = smoke(check, URL)
    assert done.returncode == 0, done.stderr


def test_prometheus_scrapes_it_and_evaluates_every_rule(compose: Compose) -> None:
    prometheus = Prometheus("http://127.0.0.1:9090")
    eventually(lambda: prometheus.values('up{job="e3rl", release="e3rl"} == 1'), "the server is scraped")
    eventually(lambda: prometheus.values("release:vllm_kv_cache_usage:max"), "a rule has recorded")

    def rules() -> dict[str, str]:
        groups = prometheus.get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    eventually(lambda: set(rules().values()) == {"ok"}, "every rule is well")
    assert rules().keys() == names("record") | names("alert")


def test_a_stop_in_mid_stream_ends_it_whole(compose: Compose) -> None:
    server = compose("ps", "--quiet", "server").stdout.strip()
    check_that_a_stream_survives(lambda: compose("stop", "server"))
    assert inspect(server)["State"]["ExitCode"] == 0
