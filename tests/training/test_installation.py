"""Training installs beside the serving engine."""

from __future__ import annotations

import subprocess
import sys


def test_no_two_packages_want_different_versions() -> None:
    """`pip check` names what `make install` leaves out on purpose as not installed; a conflict it words otherwise."""
    said = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False).stdout
    conflicts = [line for line in said.splitlines() if "which is not installed" not in line]
    assert conflicts in ([], ["No broken requirements found."])
    missing = {line.split(" requires ")[1].split(",")[0] for line in said.splitlines() if " requires " in line}
    assert missing <= {"triton", "torchaudio", "torchcodec", "torchvision", "llama-cpp-python", "llm"}
