"""The small GoPro files that failed, from command to windows, against the motion behind them."""

import json
from pathlib import Path

import pytest

from primus_scale.cli import main
from primus_scale.data.shard_set import ShardSet
from tests.cases import case_path, error_of


@pytest.mark.parametrize("name", ["gp_doc", "gp_spill5", "gp_empt"])
def test_every_window_is_the_motion_at_its_time(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["shards", "build", "gopro", "--src", str(case_path(name)), "--out", str(out)]
    assert main([*command, "--workers", "1", "--frames", "0"]) == 0
    shards = ShardSet.open(str(out))
    windows = [shards.read_window(number) for number in range(len(shards))]
    assert sorted(window.meta.start_s for window in windows) == [0, 5, 10, 15]
    for window in windows:
        assert error_of(window.imu, window.meta.start_s) < 0.005
    (report,) = json.loads((out / "ingest.json").read_text())["recordings"]
    told = any("no samples in 1 of 20 telemetry blocks" in note for note in report["notes"])
    assert told == (name == "gp_empt")


def test_a_time_lapse_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["shards", "build", "gopro", "--src", str(case_path("gp_lapse")), "--out", str(out)]
    assert main([*command, "--workers", "1"]) != 0
    error = capsys.readouterr().err
    assert "the video is not in real time: ACCL has 30 samples a second" in error
    assert "Traceback" not in error
