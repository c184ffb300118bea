"""What the benchmarks' reports say, without an engine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import overhead, report, rollback, startup
from benchmarks.report import BenchmarkError


def arguments(path: Path, *flags: str) -> argparse.Namespace:
    return report.parser("probe", "A probe.").parse_args(["--json", str(path), *flags])


def test_a_report_says_when_where_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments(tmp_path / "r.json", "--quick")
    assert report.run("probe", lambda _: {"ratios": {"a": 1.0}, "raw": [1]}, args) == 0
    written = json.loads((tmp_path / "r.json").read_text())
    assert {"name", "date", "hardware", "versions", "command", "load_before", "quick", "ratios", "raw"} <= set(written)
    assert written["name"] == "probe" and written["quick"] is True
    shown = json.loads(capsys.readouterr().out)
    assert "raw" not in shown and shown["ratios"] == {"a": 1.0}


def test_a_failure_is_one_line_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: argparse.Namespace) -> dict[str, Any]:
        raise BenchmarkError("the server said no")

    assert report.run("probe", fail, arguments(tmp_path / "r.json")) == 1
    assert capsys.readouterr().err == "probe: error: the server said no\n"
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    measured = []
    args = arguments(tmp_path / "missing" / "r.json")
    assert report.run("probe", lambda _: measured.append(1) or {}, args) == 1  # type: ignore[func-returns-value]
    assert not measured


def test_the_command_tells_no_folder() -> None:
    line = report.command_line("rollback", ["--json", "/home/me/out.json", "--model=/data/m", "--repeats", "3"])
    assert line == "python -m benchmarks.rollback --json out.json --model=m --repeats 3"


def test_the_hardware_is_described() -> None:
    hardware = report.hardware()
    assert hardware["cores"] >= 1 and hardware["memory_gib"] > 0 and hardware["cpu"]
    assert isinstance(hardware["gpus"], list)


@pytest.mark.parametrize(
    ("values", "median", "quartiles"), [([1.0], 1.0, [1.0, 1.0]), ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, [2.0, 4.0])]
)
def test_a_spread_is_median_and_quartiles(values: list[float], median: float, quartiles: list[float]) -> None:
    found = report.spread(values)
    assert (found["median"], found["quartiles"]) == (median, quartiles)
    assert found["extremes"] == [min(values), max(values)] and found["n"] == len(values)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="nothing was measured"):
        report.spread([])


# --- what each benchmark makes of its measurements ------------------------------------------------------------------


def test_overhead_pairs_its_ratios_within_a_repeat() -> None:
    def record(repeat: int, machine: float) -> dict[str, Any]:
        speeds = {"stock": 100 * machine, "off": 99 * machine, "committed": 98 * machine, "live": 90 * machine}
        firsts = {"stock": 0.2 / machine, "live": 0.21 / machine}
        return {"repeat": repeat, "streams": 8, "tokens_per_second": speeds, "first_token_seconds": firsts}

    found = overhead.summarise([record(0, 1.0), record(1, 0.5), record(2, 2.0)])
    throughput = {"throughput_off": {"8": 0.99}, "throughput": {"8": 0.98}, "throughput_live": {"8": 0.9}}
    assert found["ratios"] == {**throughput, "first_token": {"8": 1.05}}
    assert found["intervals"]["throughput"]["8"]["extremes"] == [0.98, 0.98]


class FakeLoad:
    def __init__(self) -> None:
        self.bursts: list[tuple[str, int]] = []

    async def burst(self, arm: overhead.Arm, streams: int, tokens: int) -> overhead.Burst:
        self.bursts.append((arm.name, tokens))
        return overhead.Burst(seconds=2.0, first=[0.1] * streams)


async def test_overhead_loads_one_server_at_a_time_in_mirrored_order() -> None:
    load: Any = FakeLoad()
    arms = [overhead.Arm(name, "http://x", "m", None) for name in ("stock", "committed", "live")]
    record = await overhead._repeat(load, arms, 8, 128)
    assert [name for name, tokens in load.bursts if tokens == 128] == [
        "stock", "committed", "live", "live", "committed", "stock",
    ]  # fmt: skip
    assert [name for name, tokens in load.bursts if tokens != 128] == ["stock", "live", "live", "stock"]
    assert record["tokens_per_second"] == dict.fromkeys(("stock", "committed", "live"), 2 * 8 * 128 / 4.0)
    assert record["first_token_seconds"] == {"stock": 0.1, "live": 0.1}


STREAM = b'data: {"healing":{"erasures":%d}}\n\ndata: {"usage":{"completion_tokens":%d}}\n\n'


@pytest.mark.parametrize(
    ("status", "received", "message"),
    [
        (503, b"busy", "answered 503: busy"),
        (200, STREAM % (0, 12), "brought"),
        (200, STREAM % (1, 16), "was erased"),
        (200, b'data: {"usage":{"completion_tokens":16}}\n\n', "without a healing summary"),
    ],
)
def test_overhead_counts_no_stream_that_did_other_work(status: int, received: bytes, message: str) -> None:
    arm = overhead.Arm("live", "http://x", "m", {"mode": "on", "stream": "live"})
    with pytest.raises(BenchmarkError, match=message):
        overhead._check(arm, status, received, 16)
    overhead._check(arm, 200, STREAM % (0, 16), 16)


def test_rollback_refuses_to_compare_different_erasures() -> None:
    case = {"recomputed_tokens_per_erasure": 1.0, "scheduled_tokens": 100, "seconds": {"median": 1.0}, "erasures": 4}
    outside = {**case, "recomputed_tokens_per_erasure": 20.0, "scheduled_tokens": 200, "seconds": {"median": 2.0}}
    found = rollback.summarise({rollback.HEADLINE: case}, outside)
    assert found["recomputed_tokens_per_erasure"] == 1.0
    assert found["outside_recomputed_tokens_per_erasure"] == 20.0
    assert set(found["ratios"].values()) == {0.5}
    with pytest.raises(BenchmarkError, match="not comparable"):
        rollback.summarise({rollback.HEADLINE: case}, {**outside, "erasures": 5})


class RecordingEngine:
    def __init__(self) -> None:
        self.prompts: list[list[int]] = []
        self.aborted: list[str] = []

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: Any) -> None:
        self.prompts.append(prompt["prompt_token_ids"])

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids


def test_the_outside_client_resubmits_prompt_and_kept_prefix() -> None:
    pytest.importorskip("vllm")
    engine, client = RecordingEngine(), rollback.OutsideClient(0, [1, 2])
    client.submit(engine)
    for _ in range(rollback.SEGMENT):
        client.take(engine, [7])
    assert engine.aborted == ["outside-0-0"] and client.kept == []
    for _ in range(3 * rollback.SEGMENT):
        client.take(engine, [8])
    assert engine.aborted == ["outside-0-0", "outside-0-1"]
    assert engine.prompts == [[1, 2], [1, 2], [1, 2] + [8] * 2 * rollback.SEGMENT]
    assert client.erasures == 2


def test_startup_compares_with_stock() -> None:
    records = [
        {"healing": healing, "seconds": seconds, "resident_mib": 1000.0, "proportional_mib": 800.0}
        for healing, seconds in (("off", 10.0), ("on", 11.0), ("off", 10.0), ("on", 13.0), ("off", 10.0), ("on", 12.0))
    ]
    found = startup.summarise(records)
    assert found["seconds_to_ready"] == 12.0
    assert found["ratios"] == {"seconds": 1.2, "resident_mib": 1.0, "proportional_mib": 1.0}


def test_students_interval() -> None:
    """Of 1, 2, 3: standard error 1 / sqrt 3, times 4.303 at two degrees of freedom."""
    found = report.interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["half_width"] == pytest.approx(2.4843, abs=1e-3)
    assert report.interval([1.0])["half_width"] is None
