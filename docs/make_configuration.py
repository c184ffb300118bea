"""Write the table in docs/configuration.md from the settings' own types, bounds and descriptions. Takes no argument."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from e3rl_core.policy import PRESETS, HealingPolicy

TARGET = Path(__file__).with_name("configuration.md")

BEGIN, END = "<!-- settings: written by docs/make_configuration.py -->\n", "<!-- end of settings -->"

HEAD = "| setting | type and bounds | default | meaning |\n|---|---|---|---|\n"

SHORTHAND = (
    "| `segment.tokens` | integer, 1 to 8192 | | "
    "Shorthand for a fixed length: `unit` tokens, both bounds this. Stands alone. |"
)


def document(old: str) -> str:
    """The file with its table of settings made anew."""
    before, _, rest = old.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


def table() -> str:
    """All settings, one a row, then what the presets set."""
    defaults = HealingPolicy.from_preset("responsive").model_dump(mode="json")
    rows = []
    for path, field in fields(HealingPolicy):
        rows.append(f"| `{path}` | {bounds(field)} | {_default(defaults, path)} | {field.description} |")
        if path == "segment.max_tokens":
            rows.append(SHORTHAND)
    presets = [f"- preset `{name}`: `{json.dumps(values)}`" for name, values in PRESETS.items()]
    return HEAD + "\n".join([*rows, "", *presets]) + "\n"


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting with its dotted path."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def bounds(field: FieldInfo) -> str:
    """A setting's type and range, in words."""
    limits = {}
    for part in field.metadata:
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            if getattr(part, name, None) is not None:
                limits[name] = f"{getattr(part, name):g}"
    words = _kind(field.annotation)
    if "min_length" in limits:
        return f"{words}, {limits['min_length']} to {limits['max_length']} of them"
    low = f"{limits['ge']}" if "ge" in limits else f"above {limits['gt']}" if "gt" in limits else None
    high = f"to {limits['le']}" if "le" in limits else f"to below {limits['lt']}" if "lt" in limits else "or more"
    return f"{words}, {low} {high}" if low else words


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " \\| ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list of integers, 0 or more"
    names = {int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return names[annotation]


def _default(defaults: dict[str, Any], path: str) -> str:
    value: Any = defaults
    for part in path.split("."):
        value = value[part]
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    TARGET.write_text(document(TARGET.read_text("utf-8")), "utf-8")
    sys.exit(0)
