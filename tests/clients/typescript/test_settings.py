"""The TypeScript client knows the settings and the events that the server knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from e3rl_core import events
from e3rl_core.policy import HealingPolicy

SOURCE = Path(__file__).parents[3] / "clients" / "typescript" / "src"

#: Set by the client itself.
ALWAYS_LIVE = "stream"


def fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation)


def test_every_setting_has_a_type() -> None:
    source = re.sub(r"/\*\*.*?\*/", "", (SOURCE / "settings.ts").read_text("utf-8"))
    assert {*re.findall(r"(\w+)\?: ", source), ALWAYS_LIVE} == set(fields(HealingPolicy))


@pytest.mark.parametrize("name", ["SegmentStarted", "SegmentDelta", "SegmentErased", "SegmentCommitted", "Summary"])
def test_every_event_has_its_fields(name: str) -> None:
    source = (SOURCE / "events.ts").read_text("utf-8")
    declared = "".join(re.findall(rf"interface (?:Place|{name}) .*?\n}}", source, re.DOTALL))
    typed = {*re.findall(r"^  (\w+)\??: ", declared, re.MULTILINE)}
    assert set(getattr(events, name).model_fields) <= typed
