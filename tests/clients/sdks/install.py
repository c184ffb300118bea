"""Puts the clients of others into build/clients and npm/node_modules: `make test-sdks`. Needs npm."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
CLIENTS = HERE.parents[2] / "build/clients"


def install() -> None:
    """One virtual environment per line of requirements.txt, and what npm/package.json names."""
    for line in (HERE / "requirements.txt").read_text("utf-8").splitlines():
        if named := re.match(r"[a-z-]+", line):
            _install_python(CLIENTS / named[0], line)
    subprocess.run(["npm", "ci"], cwd=HERE / "npm", check=True)


def _install_python(environment: Path, requirement: str) -> None:
    if not (environment / "bin/python").exists():
        venv.create(environment, with_pip=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, requirement], check=True)


if __name__ == "__main__":
    if shutil.which("npm") is None:
        sys.exit("npm is not on PATH: install Node 20 or newer")
    try:
        install()
    except subprocess.CalledProcessError as failed:
        sys.exit(f"not all clients are installed: {failed}")
