import json
from pathlib import Path

import numpy as np
import pytest

from primus_scale.cli import main
from primus_scale.data.shard_set import ShardSet
from shards.recording import ACCELEROMETER, Device
from shards.settings import SensorLimits
from shards.signal.condition import condition
from tests.recording_factory import acceleration, make_sensor, sample_times
from tests.recording_folder import write_recordings


@pytest.mark.parametrize("value", [1e30, 1e39, 2e4, -1e8])
def test_values_that_no_sensor_gives_are_invalid_records(value: float) -> None:
    """A single one would pass for a spike, and ruin the mean and deviation of a whole data set."""
    time_s = sample_times(100.0, 10.0)
    values = acceleration(time_s)
    values[500, 1] = value
    device = Device("imu", "chest", (make_sensor(ACCELEROMETER, "m/s2", time_s, values),))
    signal = condition(device, channels=ACCELEROMETER, units=("m/s2",) * 3, rate_hz=50.0)
    (report,) = signal.sensors
    assert report.invalid == 1
    assert max(np.abs(segment.values).max() for segment in signal.segments) < 20


def test_lost_samples_that_are_filled_in_are_counted() -> None:
    time_s = np.delete(sample_times(50.0, 20.0), [100, 300, 301, *range(500, 520)])
    sensor = make_sensor(ACCELEROMETER, "m/s2", time_s, acceleration(time_s))
    signal = condition(
        Device("imu", "chest", (sensor,)),
        channels=ACCELEROMETER,
        units=("m/s2",) * 3,
        rate_hz=50.0,
        limits=SensorLimits(gap_s=0.07),
    )
    (report,) = signal.sensors
    assert (report.filled, report.gaps) == (3, 1)


def test_a_window_of_1e18_is_refused_and_named_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recordings(tmp_path / "source", range(2), seconds=31.0)
    path = tmp_path / "source" / "person 1" / "walk 001" / "imu.npy"
    imu = np.load(path)
    imu[1000:1500, 1:7] = 1e18  # from 11 to 16 s, for its times begin at 1 s
    np.save(path, imu)
    out = tmp_path / "out"
    command = ["shards", "build", "folder", "--src", str(tmp_path / "source"), "--out", str(out)]
    assert main([*command, "--workers", "1"]) == 0
    recordings = json.loads((out / "ingest.json").read_text())["recordings"]
    good, bad = sorted(recordings, key=lambda one: one["person"])
    assert good["devices"][0]["refused"] == {}
    assert good["windows"] == 6
    # Windows begin at 5, 10, 15, 20 and 25 s.
    assert (bad["windows"], bad["devices"][0]["refused"]) == (3, {"invalid records": 2})
    assert [one["invalid"] for one in bad["devices"][0]["sensors"]] == [500, 500]
    printed = capsys.readouterr().out
    assert "FLAGGED  person 1-walk 001" in printed
    assert "500 invalid (--max-dropped)" in printed
    assert "2  invalid records (" in printed
    assert "--max-acc 10000" in printed
    shards = ShardSet.open(str(out))
    assert len(shards) == 9
    assert max(np.abs(shards.read_window(n).imu).max() for n in range(len(shards))) < 50
