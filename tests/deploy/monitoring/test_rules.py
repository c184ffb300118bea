"""Alert and recording rules: well formed, unit-tested, and each alert explained."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.deploy.tools import DEPLOY, ROOT, run

RULES = [DEPLOY / "monitoring/recording-rules.yaml", DEPLOY / "monitoring/alerts.yaml"]
UNIT_TESTS = ROOT / "tests/deploy/monitoring/rules_test.yaml"


def rules() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def names(kind: str) -> set[str]:
    return {rule[kind] for rule in rules() if kind in rule}


def test_promtool_finds_nothing() -> None:
    checked = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert checked.returncode == 0, checked.stderr


def test_the_unit_tests_pass() -> None:
    tested = run("promtool", "test", "rules", UNIT_TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_rule_has_a_unit_test() -> None:
    tests = yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    silent = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if not case["exp_alerts"]}
    queried = " ".join(case["expr"] for test in tests for case in test.get("promql_expr_test", []))
    assert fired == silent == names("alert")
    assert {name for name in names("record") if name not in queried} == set()


def test_every_alert_is_explained() -> None:
    documented = (ROOT / "docs/deploy.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(E3rl\w+)`", documented, re.MULTILINE)) == names("alert")


def test_every_alert_says_what_happens_and_how_bad_it_is() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {alert["labels"]["severity"] for alert in alerts} == {"critical", "warning", "info"}
    assert all(alert["annotations"].keys() == {"summary", "description"} for alert in alerts)
