"""A function in a process of its own: answered, killed, and told about in one sentence."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e3rl_core.errors import RewardError
from e3rl_training.verifier import Unanswered, Verifier

SCORES = """
import os, subprocess, sys, time
from fractions import Fraction

calls = 0

def length(text, answer):
    return len(text) + len(answer)

def count(text, answer):
    global calls
    calls += 1
    return calls

def sleepy(text, answer):
    time.sleep(60 if text == "sleep" else 0)
    return 1.0

def parent(text, answer):
    child = subprocess.Popen(["sleep", "60"])
    open(text, "w").write(str(child.pid))
    time.sleep(60)

def chatty(text, answer):
    print("said", text)
    os.system("echo said by a child")
    sys.stdin.read()
    return 2.0

def raising(text, answer):
    if text:
        raise ValueError("first line\\nsecond line")
    return 0.0

def leaving(text, answer):
    sys.exit(3)

def dying(text, answer):
    os._exit(3)

def echo(text, answer):
    return float(text == "\\u2028 \\U0001f600 \\ud800\\n" and answer == "x" * 300_000)

def given(text, answer):
    return {"none": None, "text": "1.0", "list": [1.0], "nan": float("nan"), "true": True, "half": Fraction(1, 2)}[text]

class Space:
    @staticmethod
    def zero(text, answer):
        return 0.0

constant = 3
"""


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "scores_of_test.py").write_text(SCORES, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "scores_of_test"


@pytest.fixture
def verifier(scores: str, request: pytest.FixtureRequest) -> Iterator[Verifier]:
    with Verifier(f"{scores}:{request.param}", timeout=10.0) as made:
        yield made


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pid_of(verifier: Verifier) -> int:
    assert verifier._process is not None
    return verifier._process.pid


@pytest.mark.parametrize("verifier", ["count"], indirect=True)
def test_one_process_answers_every_call(verifier: Verifier) -> None:
    assert [verifier.score("", "") for _ in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("verifier", ["echo"], indirect=True)
def test_arguments_arrive_as_they_are(verifier: Verifier) -> None:
    assert verifier.score("\u2028 \U0001f600 \ud800\n", "x" * 300_000) == 1.0


@pytest.mark.parametrize("verifier", ["Space.zero"], indirect=True)
def test_a_function_in_a_class_is_found(verifier: Verifier) -> None:
    assert verifier.score("", "") == 0.0


def test_a_hanging_call_is_killed_and_the_next_one_answered(scores: str) -> None:
    with Verifier(f"{scores}:sleepy", timeout=0.5, name="mine") as verifier:
        verifier.start()
        hanging, began = pid_of(verifier), time.monotonic()
        with pytest.raises(Unanswered, match=r"^rewards\.mine: took more than 0\.5 s on a completion; make it faster"):
            verifier.score("sleep", "")
        assert time.monotonic() - began < 5.0
        assert not alive(hanging)
        assert verifier.timeouts == 1
        assert verifier.score("", "") == 1.0


def test_what_backtracks_without_end_is_killed() -> None:
    """No signal handler and no thread of Python's would run while it does."""
    with Verifier("re:fullmatch", timeout=0.5) as verifier, pytest.raises(Unanswered, match="took more than"):
        verifier.score("(a+)+b", "a" * 40)


def test_what_a_hanging_call_started_is_killed_with_it(scores: str, tmp_path: Path) -> None:
    with Verifier(f"{scores}:parent", timeout=1.0) as verifier, pytest.raises(Unanswered):
        verifier.score(str(tmp_path / "pid"), "")
    child = int((tmp_path / "pid").read_text())
    for _ in range(50):  # it is init's to bury
        if not alive(child):
            break
        time.sleep(0.1)
    assert not alive(child)


def test_start_up_is_outside_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_of_test.py").write_text("import time\ntime.sleep(1.0)\ndef one(*_): return 1.0\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with Verifier("slow_of_test:one", timeout=0.5) as verifier:
        assert verifier.score("", "") == 1.0


def test_an_import_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stuck_of_test.py").write_text("import time\ntime.sleep(60)\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("e3rl_training.verifier.START_SECONDS", 0.5)
    with Verifier("stuck_of_test:one", timeout=5.0) as verifier, pytest.raises(RewardError, match=r"within 0\.5 s"):
        verifier.start()


@pytest.mark.parametrize("verifier", ["chatty"], indirect=True)
def test_what_it_prints_and_reads_is_kept_apart(verifier: Verifier, capfd: pytest.CaptureFixture[str]) -> None:
    assert [verifier.score("this", "") for _ in range(2)] == [2.0, 2.0]
    verifier.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert "said by a child" in err


@pytest.mark.parametrize("verifier", ["raising"], indirect=True)
def test_an_exception_is_told_in_one_line_and_does_not_end_the_worker(verifier: Verifier) -> None:
    line = SCORES[: SCORES.index("raise ValueError")].count("\n") + 1
    with pytest.raises(RewardError) as raised:
        verifier.score("x", "")
    assert str(raised.value) == (
        f"rewards.scores_of_test:raising: raised ValueError: first line (scores_of_test.py, line {line}); "
        "it must return a number for any completion, the empty one too"
    )
    worker = pid_of(verifier)
    assert verifier.score("", "") == 0.0
    assert pid_of(verifier) == worker


@pytest.mark.parametrize("verifier", ["leaving"], indirect=True)
def test_sys_exit_is_an_exception_like_others(verifier: Verifier) -> None:
    with pytest.raises(RewardError, match="raised SystemExit: 3"):
        verifier.score("", "")


@pytest.mark.parametrize("verifier", ["dying"], indirect=True)
def test_a_worker_that_ends_itself_is_told_about_and_replaced(verifier: Verifier) -> None:
    for _ in range(2):
        with pytest.raises(Unanswered, match=r"ended its process \(exit status 3\)"):
            verifier.score("", "")
    assert verifier.timeouts == 0


@pytest.mark.parametrize("verifier", ["length"], indirect=True)
def test_a_worker_killed_between_calls_is_replaced(verifier: Verifier) -> None:
    verifier.start()
    assert verifier._process is not None
    verifier._process.kill()
    verifier._process.wait()
    assert verifier.score("four", "2") == 5.0


@pytest.mark.parametrize("verifier", ["given"], indirect=True)
def test_only_finite_numbers_are_rewards(verifier: Verifier) -> None:
    assert verifier.score("true", "") == 1.0
    assert verifier.score("half", "") == 0.5
    for text, named in [("none", "NoneType"), ("text", "str"), ("list", "list"), ("nan", "nan")]:
        with pytest.raises(RewardError, match=rf"returned .*{named}; it must return a finite number"):
            verifier.score(text, "")


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("no_such_package_here:score", "ModuleNotFoundError: No module named 'no_such_package_here'"),
        ("scores_of_test:no_such_function", "AttributeError.*no_such_function"),
        ("scores_of_test:constant", "TypeError: constant is of type int, not a function"),
    ],
)
def test_what_cannot_be_imported_is_an_error_at_the_start(scores: str, reference: str, named: str) -> None:
    with pytest.raises(RewardError, match=rf"^rewards\.{reference}: cannot be imported \({named}.*write it as"):
        Verifier(reference, timeout=1.0).start()


@pytest.mark.usefixtures("scores")
def test_the_working_folder_is_searched_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "only_there_of_test.py").write_text("def one(*_): return 1.0\n", "utf-8")
    (there / "json.py").write_text("raise ImportError('this is not json')\n", "utf-8")
    monkeypatch.chdir(there)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with Verifier("only_there_of_test:one", timeout=5.0) as verifier:
        assert verifier.score("", "") == 1.0


@pytest.mark.parametrize("verifier", ["length"], indirect=True)
def test_an_interrupted_call_leaves_no_answer_to_the_next(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier.start()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("e3rl_training.verifier._wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            verifier.score("four", "")
    assert verifier.score("", "") == 0.0


def test_the_worker_ends_with_its_verifier(scores: str) -> None:
    verifier = Verifier(f"{scores}:length", timeout=5.0)
    verifier.start()
    worker = pid_of(verifier)
    del verifier
    gc.collect()
    assert not Path(f"/proc/{worker}").exists()  # not even a zombie


def test_the_worker_ends_with_a_killed_parent(scores: str) -> None:
    program = (
        "from e3rl_training.verifier import Verifier; import os, sys\n"
        f"verifier = Verifier('{scores}:length', 5.0)\n"
        "verifier.start()\n"
        "print(verifier._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=False)
    worker = int(told.stdout)
    for _ in range(50):
        if not alive(worker):
            break
        time.sleep(0.1)
    assert not alive(worker)
