"""`e3rl tune`: what reaches the run, which settings it may search, and one line for an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e3rl_core.profile import PROFILE_NAME, Profile
from e3rl_training.evaluation import server
from e3rl_training.tuning import cli, run

pytestmark = pytest.mark.usefixtures("signals")

URL = ("--url", "http://fake", "--data", "modchain")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a tuning would have been called with; a server of its own does not start."""
    found: dict[str, Any] = {}

    def tune(problems: Any, settings: Any, client: Any, folder: Any, **more: Any) -> None:
        found.update(problems=problems, settings=settings, folder=folder, **more)

    @contextmanager
    def served(*_: Any) -> Iterator[str]:
        yield "http://127.0.0.1:1"

    monkeypatch.setattr(run, "tune", tune)
    monkeypatch.setattr(server, "served", served)
    return found


def test_flags_reach_the_run(seen: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    flags = ("--limit", "20", "--tries", "7", "--temperature", "0.9", "--samples", "3", "--seed", "2")
    assert cli.main([*URL, *flags, "-o", str(tmp_path)]) == 0
    settings = seen["settings"]
    assert (settings.candidates, settings.temperature, settings.samples, settings.seed) == (7, 0.9, 3, 2)
    assert len(seen["problems"].asked) == 20
    assert capsys.readouterr().out == f"{tmp_path / 'report.md'}\n{tmp_path / 'healing.json'}\n"


def test_segments_are_searched_where_no_profile_can_be_in_the_way(seen: dict[str, Any], tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other.json"
    model.mkdir()
    of_model = ("--model", str(model), "--data", "modchain", "-o", str(tmp_path / "out"))
    assert cli.main([*of_model]) == 0 and seen["settings"].scoring and seen["profile"] is None
    Profile(mean=(2.0,), std=(0.1,)).save(other)
    assert cli.main([*of_model, "--", "--profile", str(other)]) == 0
    assert not seen["settings"].scoring and seen["profile"].mean == (2.0,)
    Profile(mean=(1.0,), std=(0.1,)).save(model / PROFILE_NAME)
    assert cli.main([*of_model]) == 0 and not seen["settings"].scoring and seen["profile"].mean == (1.0,)
    assert cli.main([*URL, "-o", str(tmp_path / "out")]) == 0
    assert not seen["settings"].scoring, "what a running server heals by is not known"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--temperature", "0"), "--temperature: 0 is out of range"),
        (("--data", "gsm9k"), "--data gsm9k: there is no such task"),
        (("--limit", "10"), "--limit: 10 problems are too few"),
        (("--", "--dtype", "float32"), "--dtype: flags behind -- are of the server that --model starts"),
    ],
)
def test_errors_are_one_line(flags: tuple[str, ...], why: str, tmp_path: Path, capsys: Any) -> None:
    assert cli.main([*URL, "-o", str(tmp_path), *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("e3rl tune: error: ") and error.count("\n") == 1 and why in error


@pytest.mark.parametrize("argv", [[], [*URL], [*URL, "-o", "z", "--tries", "0"]])
def test_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
