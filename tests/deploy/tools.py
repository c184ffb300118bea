"""The programs that check deployments: where they are.

A test that needs one skips where it is missing; under `make test-deploy`, which has just installed them all, it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.install_tools import TOOLS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

#: Set by `make test-deploy`: no tool may be missing.
REQUIRED = "E3RL_TEST_DEPLOY"


def tool(name: str) -> str:
    """The path of a program; the test is skipped, or fails, where there is none."""
    found = shutil.which(name, path=os.pathsep.join([str(TOOLS / "bin"), os.environ["PATH"]]))
    if found is None:
        why = f"{name} is not installed: `make deploy-tools` installs it into build/tools"
        pytest.fail(why) if os.environ.get(REQUIRED) else pytest.skip(why)
    return found


def run(name: str, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output as text, whatever its exit status."""
    return subprocess.run([tool(name), *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
