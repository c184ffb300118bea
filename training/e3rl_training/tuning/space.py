"""The settings that are searched, and what they can be.

Settings that decide what U means are searched only where no calibration profile is in the way: its moments are of the U
that it was learned with, and a server refuses it beside others.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Draw = Callable[[random.Random], Any]

#: Redraws sample at such a share of the request's temperature.
_COOLER = (1.0, 0.7, 0.4)


def _one_of(*values: Any) -> Draw:
    return lambda stream: stream.choice(values)


#: When to erase, and what to do then.
HEALING: dict[str, Draw] = {
    "threshold.k": lambda stream: round(stream.uniform(-0.5, 3.0), 2),
    "threshold.gamma": _one_of(1.05, 1.25, 1.6, 2.0),
    "max_erasures": _one_of(1, 2, 3, 5),
    "retry.temperature": _one_of(*_COOLER),
    "erase_from": _one_of("segment", "onset"),
    "keep": _one_of("last", "best"),
}
#: What a segment is, and what its U is made of (F3).
SCORING: dict[str, Draw] = {
    "segment": _one_of(
        {"unit": "sentence", "min_tokens": 24, "max_tokens": 96},
        {"unit": "sentence", "min_tokens": 8, "max_tokens": 48},
        {"unit": "line", "min_tokens": 8, "max_tokens": 96},
        {"tokens": 32},
        {"tokens": 64},
    ),
    "uncertainty.max": _one_of(0.0, 0.25, 0.5, 1.0),
    "uncertainty.rise": _one_of(0.0, 0.25, 0.5),
}


def space(scoring: bool) -> dict[str, Draw]:
    """What is searched, by the dotted name of the setting.

    Args:
        scoring: whether settings that decide what U means are, too.
    """
    return {**HEALING, **(SCORING if scoring else {})}


def candidates(count: int, *, temperature: float, scoring: bool, seed: int) -> list[dict[str, Any]]:
    """So many settings, each once, as a request's `healing` field takes them; the first is empty: the server's own.

    More of the same seed begin with the same ones. Drawn at random, not on a grid: where few settings matter, each try
    is then another value of those.

    Args:
        count: how many.
        temperature: of the requests.
        scoring: as of `space`.
        seed: of the choice.
    """
    stream = random.Random(f"tune-{seed}")
    found: dict[str, dict[str, Any]] = {"{}": {}}
    while len(found) < count:
        settings = _nested({name: draw(stream) for name, draw in space(scoring).items()})
        settings["retry"]["temperature"] = round(settings["retry"]["temperature"] * temperature, 3)
        found.setdefault(json.dumps(settings), settings)
    return list(found.values())


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, key = name.partition(".")
        if dot:
            found.setdefault(group, {})[key] = value
        else:
            found[group] = value
    return found
