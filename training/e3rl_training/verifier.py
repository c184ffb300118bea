"""Calling a function in a process of its own, which can be killed: the only time limit that holds for any Python.

A thread cannot be stopped, and a signal waits for the bytecode: neither ends a regular expression that backtracks.
The process is started with `subprocess`, not forked: the parent has threads, and perhaps a GPU.

One JSON value per line, over the worker's stdin and stdout:

    worker -> parent   {"ready": true} or {"raised": "..."}        the function was imported, or not
    parent -> worker   ["argument", ...]                           a call
    worker -> parent   {"value": 1.0} or {"raised": "..."} or {"no_number": "str"}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from numbers import Real
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, TextIO

from e3rl_core.errors import RewardError

#: Seconds to import a function's module in. This is outside the limit of a call: sympy alone takes one.
START_SECONDS = 120.0

#: The worker imports what its parent would. The path goes by argument: PYTHONPATH would reach the function's own
#: subprocesses, and -P keeps the working folder from standing in front of the standard library meanwhile.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from e3rl_training.verifier import serve; serve()"


class Unanswered(RewardError):
    """The call took too long and its worker was killed, or the worker died of it."""


class Verifier:
    """``package.module:function``, called with a time limit; it returns a number.

    Not to be used from several threads at once.

    Args:
        reference: What to call. Found where this process would find it, or else in the working folder.
        timeout: Seconds one call may take.
        name: What error messages call it after ``rewards.``; by default the reference.
    """

    def __init__(self, reference: str, timeout: float, name: str | None = None) -> None:
        self.reference = reference
        self.timeout = timeout
        self.name = name or reference
        self.timeouts = 0
        """Calls that took too long."""
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def start(self) -> None:
        """Start the worker where none runs; a call does so by itself.

        Raises:
            RewardError: the function cannot be imported.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        path = json.dumps([*sys.path, os.getcwd()])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, path, self.reference, str(self.timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Its own process group: ^C is the trainer's to handle, and what the function starts is killed with it.
            start_new_session=True,
        )
        self._stop = weakref.finalize(self, _stop, self._process)
        self._unread = b""
        try:
            started = self._exchange(b"", START_SECONDS)
        except TimeoutError:
            raise RewardError(
                f"rewards.{self.name}: was not imported within {START_SECONDS:g} s; "
                "move what takes so long out of its module"
            ) from None
        if "raised" in started:
            self.close()
            raise RewardError(
                f"rewards.{self.name}: cannot be imported ({started['raised']}); "
                "write it as package.module:function, and install its package or start from its folder"
            )

    def score(self, *arguments: str) -> float:
        """Call the function.

        Raises:
            Unanswered: it took too long, or ended the process. The next call starts another one.
            RewardError: it raised, returned no finite number, or cannot be imported.
        """
        self.start()
        try:
            answer = self._exchange(json.dumps(arguments).encode() + b"\n", self.timeout)
        except TimeoutError:
            self.timeouts += 1
            raise Unanswered(
                f"rewards.{self.name}: took more than {self.timeout:g} s on a completion; "
                "make it faster or raise rewards.timeout"
            ) from None
        if "raised" in answer:
            raise RewardError(
                f"rewards.{self.name}: raised {answer['raised']}; "
                "it must return a number for any completion, the empty one too"
            )
        if "no_number" in answer:
            raise RewardError(f"rewards.{self.name}: returned {answer['no_number']}; it must return a finite number")
        return float(answer["value"])

    def close(self) -> None:
        """Kill the worker, if there is one; a later call starts another."""
        if self._process is not None:
            self._stop()
            self._process = None

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Send a line, or nothing, and wait for the worker's next one. Any exception ends the worker.

        Raises:
            TimeoutError: there is no answer in time.
            Unanswered: the worker is dead.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        try:
            process.stdin.write(request)  # does not block: the worker reads all of it before it calls
            process.stdin.flush()
            while b"\n" not in self._unread:
                _wait(process.stdout, deadline)
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    raise BrokenPipeError
                self._unread += chunk
        except BrokenPipeError:
            raise self._died() from None
        except BaseException:
            # ^C too: an answer that comes later would be taken for the next call's.
            self.close()
            raise
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _died(self) -> Unanswered:
        process = self._process
        assert process is not None
        # It is ending by itself, and how it ends is worth telling; if it only closed its pipe, it is killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        self.close()
        status = process.returncode
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Unanswered(f"rewards.{self.name}: ended its process ({how}); it must return a number instead")


def _wait(pipe: IO[bytes], deadline: float) -> None:
    """Until a pipe has something to read, or is closed.

    Raises:
        TimeoutError: it has not by `deadline`, of `time.monotonic`.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker with everything that it started, and leave no zombie."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what was not flushed to a dead worker
                pipe.close()


# --- in the worker ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer calls until the parent closes its end: the worker's whole life. Arguments: path, reference, timeout."""
    _, _, reference, timeout = sys.argv
    # What the function prints goes to stderr, and what it reads is empty: the pipes are ours.
    requests, answers = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        function = resolve(reference)
    except BaseException as error:
        _send(answers, {"raised": _one_line(error)})
        return
    _send(answers, {"ready": True})
    for line in requests:
        # For a parent that was killed meanwhile: nobody else ends this call then. The kernel does, whatever runs.
        signal.setitimer(signal.ITIMER_REAL, 2 * float(timeout) + 1)
        answer = _answer(function, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def resolve(reference: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    Raises:
        Exception: whatever its import raises; AttributeError or TypeError where it is no function.
    """
    module, _, attribute = reference.partition(":")
    function = attrgetter(attribute)(importlib.import_module(module))
    if not callable(function):
        raise TypeError(f"{attribute} is of type {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def _answer(function: Callable[..., Any], arguments: Sequence[str]) -> dict[str, Any]:
    try:
        value = function(*arguments)
        if not isinstance(value, Real):
            return {"no_number": f"a value of type {type(value).__name__}"}
        number = float(value)
        return {"value": number} if math.isfinite(number) else {"no_number": str(number)}
    except BaseException as error:  # SystemExit too: one completion's answer is no reason to end
        return {"raised": _one_line(error)}


def _one_line(error: BaseException) -> str:
    """Type, first line of the message, and where it was raised."""
    message = str(error).strip().partition("\n")[0][:200]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


def _send(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()
