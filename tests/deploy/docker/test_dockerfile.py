"""The Dockerfile, before anything is built."""

from __future__ import annotations

import re

import e3rl_core
from tests.deploy.tools import DEPLOY, ROOT, run

DOCKERFILE = (DEPLOY / "docker/Dockerfile").read_text("utf-8")


def test_hadolint_finds_nothing() -> None:
    linted = run("hadolint", "--no-color", DEPLOY / "docker/Dockerfile")
    assert (linted.returncode, linted.stdout) == (0, "")


def test_both_images_run_without_root_and_without_a_shell() -> None:
    stages = re.split(r"^FROM \S+ AS ", DOCKERFILE, flags=re.MULTILINE)[1:]
    for name in ("cpu", "cuda"):
        (stage,) = (stage for stage in stages if stage.startswith(f"{name}\n"))
        assert stage.rstrip().endswith("USER 10001:10001")
    for instruction in re.findall(r"^ *(?:ENTRYPOINT|CMD) (.*)$", DOCKERFILE, re.MULTILINE):
        assert instruction.startswith("[")


def test_versions_are_those_of_the_project() -> None:
    makefile, project = ((ROOT / name).read_text("utf-8") for name in ("Makefile", "pyproject.toml"))
    for pin in re.findall(r"[\w-]+==[\w.]+", DOCKERFILE):
        assert pin in makefile + project, pin
    assert f"image: e3rl:{e3rl_core.__version__}-cpu" in (DEPLOY / "compose/compose.yaml").read_text("utf-8")


def test_what_is_copied_is_what_the_package_needs() -> None:
    let_in = set(re.findall(r"^!(\S+)$", (DEPLOY / "docker/Dockerfile.dockerignore").read_text("utf-8"), re.MULTILINE))
    assert all((ROOT / name).exists() for name in let_in)
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert packages is not None
    folders = {re.sub(r"/e3rl_\w+$", "", path) for path in re.findall(r'"([^"]+)"', packages[1])}
    assert let_in == folders | {"pyproject.toml", "README.md", "LICENSE"}
