"""The documents keep up with the code: settings, metrics, links, and the picture's script."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_configuration_is_written_from_the_settings() -> None:
    written = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert written == script("make_configuration").document(written), "run python docs/make_configuration.py"


def test_every_metric_is_documented() -> None:
    source = (ROOT / "server/e3rl_server/metrics.py").read_text("utf-8")
    names = set(re.findall(r'"(e3rl_[a-z_]+)"', source))
    documented = (ROOT / "docs/metrics.md").read_text("utf-8")
    assert names and not {name for name in names if f"`{name}" not in documented}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def test_the_picture_strikes_what_was_erased() -> None:
    picture = script("make_heal_picture")
    stream = [
        event("segment.started"),
        event("segment.delta", text="Two & two "),
        event("segment.delta", text="is five."),
        event("segment.erased", tokens=5, uncertainty={"u": 2.5}, threshold=2.0),
        event("segment.delta", text="Two & two is four."),
        event("segment.committed", chars=18, attempts=2, uncertainty={"u": 0.5}),
        event("segment.delta", text=" Yes."),
        event("segment.committed", chars=5, attempts=1, uncertainty={"u": 0.1}),
    ]
    drawn = list(picture.pieces(stream))
    assert [(piece.kind, piece.text) for piece in drawn] == [
        ("erased", "Two & two is five."),
        ("replacement", "Two & two is four."),
        ("kept", " Yes."),
    ]
    svg = picture.svg(drawn, "2+2")
    assert 'line-through" xml:space="preserve">Two &amp; two is five.' in svg
    assert "U 2.50 &gt; threshold 2.00" in svg
