import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader
from tests.reading import find_ref, read_sensor
from tests.recordings import recording_path
from tests.vrs_factory import IMU_LEFT, IMU_RIGHT, make_imu, write_vrs

pytest.importorskip("projectaria_tools")

NAME = "20230607_s0_james_johnson_act1_e72nhq"
SECOND = 10**9
# Device time at which the units' common time code reads 5000 s; the head's is that of the pictures.
STARTS_S = {"head": 86, "lwrist": 3, "rwrist": 700}
CODE_S = 5000
STEPS_NS = 400_000_000 + 1_250_000 * np.arange(300)


def write_unit(root: Path, unit: str, *, code: bool = True, seed: int = 0) -> None:
    start_ns = STARTS_S[unit] * SECOND
    pairs = [(start_ns + k * SECOND, (CODE_S + k) * SECOND) for k in range(3)]
    imus = {
        label: make_imu(start_ns + STEPS_NS, seed=seed + number)
        for number, label in enumerate((IMU_LEFT, IMU_RIGHT))
    }
    path = root / f"recording_{unit}" / "data" / "motion.vrs"
    write_vrs(path, imus, time_code=pairs if code else ())


def write_narration(root: Path, name: str, columns: Sequence[str], *rows: Sequence[object]) -> None:
    path = root / "narration" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ",".join(("start_time", "end_time", *(f'"{column}"' for column in columns)))
    lines = (",".join(f'"{cell}"' if isinstance(cell, str) else str(cell) for cell in row)
             for row in rows)  # fmt: skip
    path.write_text("\n".join([header, *lines, ""]))


def write_narrations(root: Path) -> None:
    actions = ("Describe my atomic actions",)
    write_narration(
        root,
        "atomic_action",
        actions,
        (86.5, 86.6, "C opens the drawer, then turns"),
        ("", 86.7, "never at any time"),
        (86.7, 86.65, "ends before it starts"),
        (86.7, 86.75, ""),
    )
    body = (
        "Describe my body posture",
        "Describe my hands/arms motion",
        "Describe my legs/feet motion",
        "Describe my focus attention",
    )
    write_narration(
        root, "motion_narration", body, (86.4, 86.5, "stands upright", "arms hang", "", "the bed")
    )
    write_narration(
        root, "activity_summarization", ("Describe my activity",), (86.4, 86.8, "#unsure")
    )


def test_a_sequence(tmp_path: Path) -> None:
    root = tmp_path / NAME
    for seed, unit in enumerate(STARTS_S):
        write_unit(root, unit, seed=10 * seed)
    observer = root / "recording_observer" / "data" / "motion.vrs"
    observer.parent.mkdir(parents=True)
    observer.write_bytes(b"of another person")
    pictures = root / "recording_head" / "data" / "data.vrs"
    pictures.symlink_to(recording_path("aria_gen1.vrs").resolve())
    write_narrations(root)
    reader = create_reader("nymeria", str(tmp_path))
    reader = pickle.loads(pickle.dumps(reader))  # noqa: S301 (pickled here)
    (ref,) = reader.recordings()
    assert ref.name == NAME
    assert len(ref.files) == 7
    with reader.open(ref) as recording:
        assert [(device.name, device.placement) for device in recording.devices] == [
            ("head-imu-left", "head"),
            ("head-imu-right", "head"),
            ("lwrist-imu-left", "left wrist"),
            ("lwrist-imu-right", "left wrist"),
            ("rwrist-imu-left", "right wrist"),
            ("rwrist-imu-right", "right wrist"),
        ]
        for number, device in enumerate(recording.devices):
            imu = make_imu(STEPS_NS, seed=10 * (number // 2) + number % 2)
            for sensor, values in zip(device.sensors, imu[1:3], strict=True):
                time_s, read = read_sensor(sensor)
                # All on the head's clock, whatever their own says.
                np.testing.assert_allclose(time_s, 86 + STEPS_NS / 1e9, atol=1e-9)
                np.testing.assert_array_equal(read, values)
        assert recording.frames is not None
        times_s = recording.frames.times_s()
        assert 86.3 < times_s[0] < times_s[-1] < 86.8
        (picture,) = recording.frames.pictures([3], short_side=32)
        assert picture.shape == (32, 32, 3)
    assert recording.narrations == (
        (86.4, 86.5, "arms hang"),
        (86.4, 86.5, "stands upright"),
        (86.4, 86.5, "the bed"),
        (86.5, 86.6, "A person opens the drawer, then turns"),
    )
    assert (recording.dataset, recording.person) == ("nymeria", "nymeria-james_johnson")
    assert "time code" in recording.sync
    uncalibrated = "no calibration of imu-{}: its values are not rectified"
    assert recording.notes == (
        *(f"{u}: {uncalibrated.format(s)}" for u in STARTS_S for s in ("left", "right")),
        "narration/atomic_action.csv: 2 rows left out, without times or with an end before the "
        "start",
    )


def test_missing_parts_are_noted(tmp_path: Path) -> None:
    root = tmp_path / NAME
    write_unit(root, "head")
    write_unit(root, "rwrist", code=False)
    # As a folder of sequences, and as a sequence by itself.
    for url in (tmp_path, root):
        reader = create_reader("nymeria", str(url), {"imu": "left"})
        with reader.open(find_ref(reader, NAME)) as recording:
            assert [device.name for device in recording.devices] == ["head-imu-left"]
            assert recording.frames is None
        assert recording.notes == (
            "head: no calibration of imu-left: its values are not rectified",
            "lwrist: no motion.vrs",
            "rwrist left out: no time code in its motion.vrs, so that its clock cannot be tied to "
            "the head's",
            "head: no data.vrs, so that there are no pictures",
            "no narration/atomic_action.csv",
            "no narration/motion_narration.csv",
            "no narration/activity_summarization.csv",
        )


def test_wrists_need_the_heads_time_code(tmp_path: Path) -> None:
    root = tmp_path / NAME
    write_unit(root, "head", code=False)
    write_unit(root, "lwrist")
    reader = create_reader("nymeria", str(tmp_path))
    with reader.open(find_ref(reader, NAME)) as recording:
        assert {device.placement for device in recording.devices} == {"head"}
        assert any("lwrist left out: no time code in the head's" in n for n in recording.notes)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    reader = create_reader("nymeria", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no <sequence>/recording_head/data/motion\.vrs b"):
        reader.recordings()
    root = tmp_path / NAME
    write_unit(root, "lwrist")
    message = rf"no .*{NAME}/recording_head/data/motion\.vrs; download it again"
    with pytest.raises(FileNotFoundError, match=message), reader.open(find_ref(reader, NAME)):
        pass
    write_unit(root, "head")
    write_narration(root, "atomic_action", ("Describe my actions",), (1, 2, "walks"))
    message = r"atomic_action\.csv has no column 'Describe my atomic actions'; the nearest is"
    with pytest.raises(ValueError, match=message), reader.open(find_ref(reader, NAME)):
        pass
    (root / "narration" / "atomic_action.csv").unlink()
    wrist = root / "recording_lwrist" / "data" / "motion.vrs"
    wrist.write_bytes(wrist.read_bytes()[:-100])
    message = r"recording_lwrist/data/motion\.vrs is empty, truncated, damaged"
    with pytest.raises(ValueError, match=message), reader.open(find_ref(reader, NAME)):
        pass


def test_a_sequence_of_unknown_name_is_told(tmp_path: Path) -> None:
    write_unit(tmp_path / "take one", "head")
    reader = create_reader("nymeria", str(tmp_path))
    message = r"sequence take one is not called <date>_<session>_<person>_<act>_<uid>"
    with pytest.raises(ValueError, match=message), reader.open(find_ref(reader, "take one")):
        pass
