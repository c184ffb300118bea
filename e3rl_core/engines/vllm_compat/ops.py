"""How ops travel from the scheduler to the API process: on engine outputs, in a field that nobody else fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e3rl_core.engines.vllm_compat.contract import KEY


def put_ops(output: Any, ops: Sequence[dict[str, Any]]) -> None:
    """Attach ops to an engine output."""
    output.kv_transfer_params = {KEY: list(ops)}


def take_ops(output: Any) -> list[dict[str, Any]]:
    """Detach the ops of an engine output; empty if it carries none."""
    params = output.kv_transfer_params
    if not params or KEY not in params:
        return []
    ops: list[dict[str, Any]] = params.pop(KEY)
    output.kv_transfer_params = params or None
    return ops
