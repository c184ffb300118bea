"""Op logs as the server writes them."""

from __future__ import annotations

from pathlib import Path

from e3rl_core.events import BudgetOp, Op
from e3rl_core.healer import Limit, Reason
from e3rl_server.oplog import LogSettings, OpLog
from tests.server.test_metrics import committed, erased

WRONG, RIGHT, LAST = "Two & two <b>is</b> five.", "Two & two is four.", "\nYes\x1b[2J."


def written(folder: Path, *, text: bool = True, choices: int = 1, mode: str = "on", finished: bool = True) -> Path:
    """The log of a response: one draw erased, its replacement kept, one more segment kept at its limit."""
    log = OpLog(LogSettings(dir=str(folder), text=text))
    response = log.open("tiny", {"mode": mode})
    before = set(folder.iterdir())
    response.begin("chatcmpl-1")
    response.prompt([1, 2, 3])
    draw = erased().model_copy(update={"token_ids": [7]})
    last = committed(segment=1, attempt=0, attempts=1, reason=Reason.UNCERTAINTY, limit=Limit.ERASED_FRACTION)
    steps: list[tuple[list[Op], str]] = [
        ([draw], ""),
        ([committed()], RIGHT),
        ([BudgetOp(budget=Limit.ERASED_FRACTION), last], LAST),
    ]
    for choice in range(choices):
        for ops, final in steps:
            response.write(choice, ops, final, lambda: lambda token: WRONG)
    if finished:
        response.close({"type": "summary"})
    log.flush()
    (path,) = set(folder.iterdir()) - before
    return path
