"""The dashboard: one screen, every panel explained, every metric of ours by its real name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from e3rl_server.metrics import Metrics
from tests.deploy.monitoring.dashboard import expressions, panels
from tests.deploy.monitoring.test_rules import RULES
from tests.deploy.tools import run

#: Grafana's grid: 24 columns; what a browser of 1,080 lines shows without scrolling.
COLUMNS, ROWS = 24, 24


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """The names of all series of ours."""
    registry = CollectorRegistry()
    Metrics(registry)
    return set(re.findall(r"^(e3rl_\w+)", generate_latest(registry).decode(), re.MULTILINE))


def test_our_metrics_exist(exposed: set[str]) -> None:
    text = "\n".join([*expressions(), *(file.read_text("utf-8") for file in RULES)])
    used = set(re.findall(r"(?<![\w:])e3rl_\w+", text))
    assert used and used - exposed == set()


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    checked = run("promtool", "check", "rules", tmp_path / "rules.yaml")
    assert checked.returncode == 0, checked.stderr


def test_panels_fill_one_screen_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert taken == {(x, y) for x in range(COLUMNS) for y in range(ROWS)}


def test_every_panel_is_explained_and_every_query_filtered() -> None:
    for panel in panels():
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        assert all('release=~"$release"' in target["expr"] for target in panel["targets"])


def test_numbers_and_titles_are_unique() -> None:
    assert len({panel["id"] for panel in panels()}) == len({panel["title"] for panel in panels()}) == len(panels())
