"""Files of real devices become windows, from the command to ``shards verify``."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from primus_scale.cli import main
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import Window
from shards.write.verify import verify
from tests.recordings import recording_path

FILES = {
    "gopro_max_hero.mp4": ("gopro", 1.0, {"GoPro Max"}),
    "aria_gen1.vrs": ("aria", 0.2, {"imu-left", "imu-right"}),
    "aria_gen2.vrs": ("aria", 0.2, {"imu-left", "imu-right"}),
}
# Windows of each file before the gates of sensors and devices came: none may be lost to them.
WINDOWS = {"gopro_max_hero.mp4": 10, "aria_gen1.vrs": 2, "aria_gen2.vrs": 2}
each_file = pytest.mark.parametrize("name", FILES)


def build(name: str, out: Path) -> tuple[list[Window], dict]:
    """Windows of a file and the report on it."""
    reader, window_s, _ = FILES[name]
    command = ["shards", "build", reader, "--src", str(recording_path(name)), "--out", str(out)]
    assert main([*command, "--window-s", str(window_s), "--frames", "1", "--workers", "1"]) == 0
    shards = ShardSet.open(str(out))
    windows = [shards.read_window(number) for number in range(len(shards))]
    (report,) = json.loads((out / "ingest.json").read_text())["recordings"]
    return sorted(windows, key=lambda w: (w.meta.start_s, w.meta.device)), report


@each_file
def test_windows_of_a_real_file(name: str, tmp_path: Path) -> None:
    windows, report = build(name, tmp_path / "out")
    assert verify(str(tmp_path / "out")).ok
    assert {window.meta.device for window in windows} == FILES[name][2]
    assert len(windows) == WINDOWS[name]
    findings = [one for device in report["devices"] for one in device["findings"]]
    assert findings == [], "real recordings that are sound"
    for device in report["devices"]:
        assert 9.5 <= device["median_acc"] <= 10.1
        for sensor in device["sensors"]:
            assert sensor["rate_hz"] == pytest.approx(device["nominal_rate_hz"], rel=0.01)
    for window in windows:
        assert 9.0 < np.median(np.linalg.norm(window.imu[:3], axis=0)) < 10.6
        assert np.abs(window.imu[3:]).max() < 10, "rad/s, not degrees"


@each_file
def test_axes_are_told_and_gravity_lies_along_the_one_that_points_up(
    name: str, tmp_path: Path
) -> None:
    """What the maker says of the axes against what the accelerometer read."""
    windows, report = build(name, tmp_path / "out")
    axes = {device["name"]: device["axes"] for device in report["devices"]}
    assert {(w.meta.device, w.meta.axes) for w in windows} == set(axes.items())
    for device in report["devices"]:
        gravity = device["gravity_direction"]
        largest = int(np.argmax(np.abs(gravity)))
        assert abs(gravity[largest]) > 0.85
        told = device["axes"].split(", ")[largest]
        assert told.startswith("xyz"[largest])
        assert ("up" if gravity[largest] > 0 else "down") in told
    if name == "aria_gen1.vrs":
        assert axes["imu-left"].startswith("x left and backward, y down, z backward and right (by")
    if name == "aria_gen2.vrs":
        assert axes["imu-left"].startswith("x up, y forward, z left (by the recording's calib")


@each_file
def test_frames_are_of_the_moment_of_their_window(name: str, tmp_path: Path) -> None:
    _, window_s, _ = FILES[name]
    windows, _ = build(name, tmp_path / "out")
    assert any(window.frames for window in windows)
    for window in windows:
        for jpeg, time_s in zip(window.frames, window.meta.frame_times_s, strict=True):
            assert window.meta.start_s - 0.05 <= time_s <= window.meta.start_s + window_s + 0.05
            assert min(Image.open(io.BytesIO(jpeg)).size) == 256


def test_the_lag_of_the_gopro_and_its_confidence_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = build("gopro_max_hero.mp4", tmp_path / "out")
    assert 0 <= report["lag"]["confidence"] <= 1
    assert not report["lag"]["flagged"], "its picture is stabilised: nothing is certain"
    printed = capsys.readouterr().out
    assert f"picture {report['lag']['lag_s']:+.3f} s behind GoPro Max" in printed
    assert f"confidence {report['lag']['confidence']:.2f}" in printed
