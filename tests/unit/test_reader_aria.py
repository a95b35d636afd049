import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader
from shards.readers.people import UNKNOWN
from tests.reading import find_ref, read_sensor
from tests.recordings import recording_path
from tests.vrs_factory import IMU_LEFT, IMU_RIGHT, make_imu, write_vrs

pytest.importorskip("projectaria_tools")

TIME_NS = 42 * 10**9 + 1_250_000 * np.arange(200)


def write(root: Path, name: str = "walk.vrs") -> None:
    write_vrs(root / name, {IMU_LEFT: make_imu(TIME_NS), IMU_RIGHT: make_imu(TIME_NS, seed=1)})


def test_real_recordings_of_both_generations(tmp_path: Path) -> None:
    for name in ("aria_gen1.vrs", "aria_gen2.vrs"):
        target = tmp_path / "days" / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(recording_path(name).resolve())
    (tmp_path / "days" / "aria_gen1.srt").write_text(
        "1\n00:00:00,050 --> 00:00:00,200\n#C C sits on the bed\n"
    )
    reader = create_reader("aria", str(tmp_path))
    reader = pickle.loads(pickle.dumps(reader))  # noqa: S301 (pickled here)
    first, second = reader.recordings()
    assert (first.name, second.name) == ("days-aria_gen1", "days-aria_gen2")
    assert first.files == ("days/aria_gen1.vrs", "days/aria_gen1.srt")
    with reader.open(first) as recording:
        assert [device.name for device in recording.devices] == ["imu-left", "imu-right"]
        assert {device.placement for device in recording.devices} == {"head"}
        assert recording.frames is not None
        times_s = recording.frames.times_s()
        assert len(times_s) == 8
        (narration,) = recording.narrations
        assert narration.text == "A person sits on the bed"
        assert narration.start_s == pytest.approx(times_s[0] + 0.05)
        assert narration.end_s == pytest.approx(times_s[0] + 0.2)
        for device in recording.devices:
            time_s, _ = read_sensor(device.sensors[0])
            assert time_s[0] < narration.start_s < narration.end_s < time_s[-1]
        assert "one clock, the device's; narrations' times are taken to be" in recording.sync
        assert recording.sync.endswith("from the first IMU record where there is none)")
    assert (recording.person, recording.notes) == ("aria-unknown", (UNKNOWN,))
    with reader.open(second) as recording:
        assert recording.narrations == ()
        assert recording.notes[0].startswith("PPG stream left out")
        assert recording.sync.endswith("one clock, the device's")
    assert recording.person == "aria-unknown"


def test_options(tmp_path: Path) -> None:
    write(tmp_path)
    spoken = [{"start_s": 42.1, "end_s": 42.2, "text": "stirs"}, {"start_s": 42.3, "text": "#O O"}]
    (tmp_path / "walk.json").write_text(json.dumps(spoken))
    options = {"imu": "right", "person": "ada", "narration_clock": "device"}
    reader = create_reader("aria", str(tmp_path), options)
    with reader.open(find_ref(reader, "walk")) as recording:
        (device,) = recording.devices
        assert (device.name, device.nominal_rate_hz) == ("imu-right", 1000.0)
        time_s, _ = read_sensor(device.sensors[0])
        np.testing.assert_array_equal(time_s, TIME_NS / 1e9)
        (narration,) = recording.narrations
        assert narration == (42.1, 42.2, "stirs")
        assert recording.frames is None
        assert recording.person == "aria-ada"
        assert recording.sync.endswith("; narrations' times are taken to be device time")
    assert recording.notes == (
        "no calibration of imu-right: its values are not rectified",
        "narrations left out: 1, of another person",
        "no camera-rgb stream: no pictures",
    )
    for options, message in (
        ({"imu": "front"}, "option imu=front: expected both, left, right"),
        ({"narration_clock": "unix"}, "option narration_clock=unix: expected start or device"),
    ):
        with pytest.raises(ValueError, match=message):
            create_reader("aria", str(tmp_path), options)


def test_files_that_macos_writes_beside_others_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "._walk.vrs").write_bytes(b"\0\5\x16\7")
    refs = create_reader("aria", str(tmp_path)).recordings()
    assert [ref.name for ref in refs] == ["walk"]


def test_a_single_file(tmp_path: Path) -> None:
    write(tmp_path)
    reader = create_reader("aria", str(tmp_path / "walk.vrs"))
    with reader.open(find_ref(reader, "walk")) as recording:
        assert len(recording.devices) == 2


def test_two_files_of_narrations_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    for extension in ("csv", "json"):
        (tmp_path / f"walk.{extension}").write_text("")
    reader = create_reader("aria", str(tmp_path))
    message = r"walk\.csv and .*walk\.json are both narrations of one recording; keep one"
    with pytest.raises(ValueError, match=message), reader.open(find_ref(reader, "walk")):
        pass


def test_damaged_and_absent_files_are_told(tmp_path: Path) -> None:
    reader = create_reader("aria", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no file called \*\.vrs below"):
        reader.recordings()
    write(tmp_path)
    path = tmp_path / "walk.vrs"
    whole = path.read_bytes()
    for content in (b"", b"no VRS at all" * 100, whole[: len(whole) // 2]):
        path.write_bytes(content)
        message = r"walk\.vrs is empty, truncated, damaged or no VRS file"
        with pytest.raises(ValueError, match=message), reader.open(find_ref(reader, "walk")):
            pass
