"""How a request's settings for the reasoning parser reach the scheduler.

vLLM keeps them there for requests with structured output alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_SETTINGS = "healing_reasoning_parser"


def with_parser_settings(params: Any, settings: Mapping[str, Any]) -> Any:
    """A copy of the `SamplingParams` that carries the parser's keyword arguments."""
    carrying = copy.copy(params)
    carrying.extra_args = {**(params.extra_args or {}), _SETTINGS: dict(settings)}
    return carrying


def parser_settings(params: Any) -> dict[str, Any]:
    """What `with_parser_settings` put there; empty where it was not called."""
    settings = (params.extra_args or {}).get(_SETTINGS)
    return settings if isinstance(settings, dict) else {}
