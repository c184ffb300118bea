"""GitHub's workflows: valid, with no more rights than they need, and calling what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.tools import ROOT, run

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))

workflows = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)


def test_they_are_workflows() -> None:
    checked = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert checked.returncode == 0, checked.stdout


@workflows
def test_rights_are_given_job_by_job(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text("utf-8"))["permissions"] == {"contents": "read"}


@workflows
def test_nothing_from_outside_is_pasted_into_a_script(workflow: Path) -> None:
    for job in yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values():
        for step in job["steps"]:
            assert set(re.findall(r"\$\{\{ (\S+) \}\}", step.get("run", ""))) <= {"matrix.target"}


@workflows
def test_make_knows_what_is_called(workflow: Path) -> None:
    document = workflow.read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = {word for words in re.findall(r"make ((?:[a-z-]+ ?)+)", document) for word in words.split()}
    if listed := re.search(r"target: \[(lint.*)\]", document):
        called |= set(listed[1].split(", "))
    assert called <= targets
