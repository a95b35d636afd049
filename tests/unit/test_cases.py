"""Inputs that failed once, from the command on, against the motion that is known to lie behind."""

import json
import time
from pathlib import Path

import pytest

from primus_scale.cli import main
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import Window
from tests.cases import case_path, error_of

SPLICE_S, SET_BACK_S = 22.3, 0.5  # of the case ego_splice


def build(name: str, out: Path, *flags: str, reader: str = "folder") -> tuple[list[Window], dict]:
    """The windows of a case by start, and the report on its recording."""
    command = ["shards", "build", reader, "--src", str(case_path(name)), "--out", str(out)]
    assert main([*command, "--workers", "1", *flags]) == 0
    shards = ShardSet.open(str(out))
    windows = [shards.read_window(number) for number in range(len(shards))]
    (report,) = json.loads((out / "ingest.json").read_text())["recordings"]
    return sorted(windows, key=lambda window: window.meta.start_s), report


def gates(report: dict) -> dict[str, str]:
    """The findings of the recording's device: text by gate."""
    return {one["gate"]: one["text"] for one in report["devices"][0]["findings"]}


@pytest.mark.parametrize("name", ["ble_bursts", "second_resolution"])
def test_samples_that_share_times_are_put_on_one_clock(name: str, tmp_path: Path, capsys) -> None:
    windows, report = build(name, tmp_path / "out")
    assert len(windows) == 12
    assert max(error_of(window.imu, window.meta.start_s) for window in windows) < 0.01
    for sensor in report["devices"][0]["sensors"]:
        assert (sensor["samples"], sensor["shared_times"], sensor["duplicates"]) == (3100, 3100, 0)
        assert sensor["rate_hz"] == pytest.approx(50.0, rel=1e-3)
    assert any("put on one clock of 50 Hz" in note for note in report["notes"])
    printed = capsys.readouterr().out
    assert "FLAGGED  anna" in printed
    assert "3,100 of 3,100 rows (100 %) shared a time" in printed
    assert "--max-shared" in printed


def test_times_in_another_unit_are_refused_at_once(tmp_path: Path, capsys) -> None:
    begin_s = time.process_time()
    command = ["shards", "build", "folder", "--src", str(case_path("ms_as_s_small"))]
    assert main([*command, "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert time.process_time() - begin_s < 20, "no filter is designed for 0.05 Hz"
    error = capsys.readouterr().err
    for part in ("column t of anna/w.csv, in s", "each 20 s", "times in ms, read as s", "50 Hz"):
        assert part in error
    assert "--min-rate-share" in error


def test_a_clock_that_was_set_back_is_a_break(tmp_path: Path, capsys) -> None:
    windows, report = build("ego_splice", tmp_path / "out", "--require", reader="ego4d")
    assert report["devices"][0]["refused"] == {"clock step": 1}
    before = [window for window in windows if window.meta.start_s + 5 <= SPLICE_S]
    after = [window for window in windows if window.meta.start_s >= SPLICE_S - SET_BACK_S]
    assert len(before) + len(after) == len(windows), "no window lies across the splice"
    assert before and after
    for window in before:
        assert error_of(window.imu, window.meta.start_s) < 0.01
    for window in after:
        late = error_of(window.imu, window.meta.start_s, motion_late_s=SET_BACK_S)
        assert late < 0.01
    assert "set forward or back 1 time," in gates(report)["clock steps"]
    assert "--max-clock-steps" in capsys.readouterr().out


def test_degrees_declared_as_radians_are_flagged(tmp_path: Path, capsys) -> None:
    _, report = build("gyro_deg", tmp_path / "out")
    assert report["devices"][0]["sensors"][1]["usual_peak"] == pytest.approx(63.0, abs=0.1)
    assert "63.02 rad/s (3,611 deg/s)" in gates(report)["high rotation"]
    printed = capsys.readouterr().out
    assert "FLAGGED  anna" in printed
    assert "--high-rotation" in printed


def test_more_than_any_device_measures_is_refused(tmp_path: Path, capsys) -> None:
    command = ["shards", "build", "folder", "--src", str(case_path("gyro_deg")), "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "out"), "--max-rotation", "40"]) == 1
    error = capsys.readouterr().err
    assert "63.02 rad/s" in error
    assert "more than 40" in error
    assert "--max-rotation" in error


def test_a_recorder_that_slept_gives_invalid_records(tmp_path: Path, capsys) -> None:
    windows, report = build("idle_part", tmp_path / "out")
    (device,) = report["devices"]
    assert [window.meta.start_s for window in windows] == [0, 5, 30, 35, 40, 45, 50, 55]
    assert device["refused"] == {"invalid records": 4}
    assert max(error_of(window.imu, window.meta.start_s) for window in windows) < 0.01
    assert device["sensors"][0]["zeros"] == 740
    assert device["median_acc"] == pytest.approx(9.86, abs=0.05), "without the zeros"
    printed = capsys.readouterr().out
    assert "740 zeros" in printed
    assert "--max-repeated" in printed
