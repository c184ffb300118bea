"""A real Prometheus scrapes a real server: every query of the dashboard and every rule finds its data."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.monitoring.dashboard import expressions
from tests.deploy.monitoring.test_rules import RULES, names
from tests.deploy.tools import DEPLOY, run, tool
from tests.e2e.serving import MODEL, Server, free_port, serve

pytestmark = pytest.mark.engine

#: Healing settings that erase all that a cap allows, at short segments.
EAGER = {"mode": "on", "segment": {"tokens": 8}, "threshold": {"k": -10.0}, "max_erasures": 1}


@dataclass
class Prometheus:
    url: str

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """The numbers that an expression has now."""
        found = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]


def eventually(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.5)


def configuration(server: Server) -> str:
    """The one of deploy/compose, for this server, at a quicker pace."""
    settings = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text("utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(path) for path in RULES]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{server.port}"]
    return str(yaml.safe_dump(settings))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tool("prometheus")  # before an engine starts in vain
    with serve("--healing", "on", log=tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "prometheus.yml").write_text(configuration(server), "utf-8")
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [tool("prometheus"), *flags, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
        try:
            running = Prometheus(f"http://127.0.0.1:{port}")
            eventually(lambda: ready(running.url), f"Prometheus is ready\n{(folder / 'log').read_text()}")
            eventually(lambda: running.values('up{job="e3rl"} == 1'), "the server is scraped")
            send_traffic(server)
            yield running
        finally:
            process.terminate()
            process.wait(30)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def send_traffic(server: Server) -> None:
    """Requests in every mode, after the first scrape: rates see them begin."""
    for healing in (EAGER, "shadow", "off"):
        body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 48, "ignore_eos": True, "healing": healing}
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).raise_for_status()


def test_promtool_has_nothing_to_say_of_the_configuration(server: Server, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(configuration(server), "utf-8")
    checked = run("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("expression", expressions())
def test_a_query_of_the_dashboard_has_data(prometheus: Prometheus, expression: str) -> None:
    eventually(lambda: prometheus.values(expression), expression, timeout=30)


def test_every_rule_is_evaluated_and_records(prometheus: Prometheus) -> None:
    for record in names("record"):
        eventually(lambda record=record: prometheus.values(record), record, timeout=30)
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == names("record") | names("alert")
    assert {rule["health"] for rule in rules} == {"ok"}
