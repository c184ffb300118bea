"""The Compose project: valid, hardened, pinned, and every file it mounts is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.tools import DEPLOY, ROOT, run

FOLDER = DEPLOY / "compose"
#: An example of the clients; nothing but this looks at it, as its image is beyond tests.
OPEN_WEBUI = ROOT / "clients/examples/others/open-webui.yaml"
PROJECT = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))

services = pytest.mark.parametrize("service", PROJECT["services"].values(), ids=PROJECT["services"].keys())


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Container paths, and what is mounted there."""
    return {target: source for source, target, *_ in (volume.split(":") for volume in service["volumes"])}


@pytest.mark.parametrize("file", [FOLDER / "compose.yaml", OPEN_WEBUI], ids=["ours", "open-webui"])
def test_it_is_a_compose_file(file: Path) -> None:
    checked = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert checked.returncode == 0, checked.stdout


@services
def test_a_service_is_hardened_and_reached_from_this_machine_only(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@services
def test_an_image_is_pinned(service: dict[str, Any]) -> None:
    assert service["image"].rpartition(":")[2][:1] in "0123456789v"


@services
def test_what_is_mounted_is_there(service: dict[str, Any]) -> None:
    for source in mounts(service).values():
        assert (FOLDER / source).exists() if source.startswith(".") else source in PROJECT["volumes"]


def test_prometheus_finds_its_rules_and_the_server() -> None:
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    found = mounts(PROJECT["services"]["prometheus"])
    for rules in map(Path, settings["rule_files"]):
        assert (FOLDER / found[str(rules.parent)] / rules.name).is_file()
    (target,) = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in PROJECT["services"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    source, board = (
        yaml.safe_load((FOLDER / "grafana" / name).read_text("utf-8"))
        for name in ("datasources.yaml", "dashboards.yaml")
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    folder = board["providers"][0]["options"]["path"]
    home = PROJECT["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == folder
    shown = json.loads((FOLDER / mounts(PROJECT["services"]["grafana"])[home]).read_text("utf-8"))
    assert shown["uid"] == "e3rl"


def test_the_server_may_drain() -> None:
    assert int(PROJECT["services"]["server"]["stop_grace_period"].removesuffix("s")) > 30
