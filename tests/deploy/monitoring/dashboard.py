"""Reads the dashboard as Grafana would."""

from __future__ import annotations

import json
from typing import Any

from tests.deploy.tools import DEPLOY

#: What Grafana puts in place of its variables.
_VARIABLES = {"$__rate_interval": "1m", "$namespace": ".*", "$release": ".*"}


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "monitoring/dashboard.json").read_text("utf-8"))
    return list(dashboard["panels"])


def expressions() -> list[str]:
    """Every query of every panel, its variables replaced."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in _VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found
