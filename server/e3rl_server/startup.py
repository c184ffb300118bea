"""Why the engine did not start, in one line.

vLLM starts its engine and workers as processes; when one fails, the parent learns only that it did. A log handler,
put into each process by the plugin ``e3rl_startup``, writes the exception to a file the parent names beforehand.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from e3rl_core.errors import first_complaint

_FILE_VARIABLE = "E3RL_STARTUP_FAILURES"

#: vLLM's loggers that report an exception when a process fails.
_LOGGERS = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")


class FailureRecorder(logging.Handler):
    """Appends each logged exception to a file, one JSON line each."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        line = json.dumps(sentence_of(error)) + "\n"
        with suppress(OSError), open(self._path, "a", encoding="utf-8") as file:  # gone once the server is up
            file.write(line)


def register() -> None:
    """Entry point of the `vllm.general_plugins` group; does nothing unless `e3rl serve` is starting."""
    path = os.environ.get(_FILE_VARIABLE)
    if not path:
        return
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, FailureRecorder) for handler in logger.handlers):
            logger.addHandler(FailureRecorder(path))


class Failures:
    """What the processes have reported."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cause(self) -> str | None:
        """The first failure's message, on one line: later ones follow from it."""
        with suppress(OSError, ValueError, IndexError):
            return str(json.loads(self._path.read_text("utf-8").splitlines()[0]))
        return None


@contextmanager
def recorded_failures() -> Iterator[Failures]:
    """Have the processes started meanwhile report their failures."""
    with TemporaryDirectory(prefix="e3rl-") as folder:
        path = Path(folder) / "failures"
        os.environ[_FILE_VARIABLE] = str(path)
        try:
            yield Failures(path)
        finally:
            del os.environ[_FILE_VARIABLE]


def sentence_of(error: BaseException) -> str:
    """What an error says, on one line; of pydantic's reports the first sentence, without what surrounds it."""
    message = first_complaint(error) if isinstance(error, ValidationError) else str(error)
    return " ".join(message.split()) or type(error).__name__
