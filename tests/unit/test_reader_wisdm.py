from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader
from shards.readers.base import Reader
from tests.reading import find_ref, read_sensor, sensor_of, spans

RNG = np.random.default_rng(3)
START_NS = 252_207_666_810_782  # of the first row of the published file
SPACING_NS = 50_354_004  # of its rows


def path_of(root: Path, person: int, device: str, sensor: str) -> Path:
    return root / "raw" / device / sensor / f"data_{person}_{sensor}_{device}.txt"


def write(
    root: Path,
    activities: str,
    person: int = 1600,
    device: str = "phone",
    sensor: str = "accel",
    order: np.ndarray | None = None,
    values: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A file of one row a letter, in ``order``; its times (ns) and values in that order."""
    rows = len(activities)
    time_ns = START_NS + np.arange(rows) * SPACING_NS
    xyz = np.round(RNG.normal(0, 4, (rows, 3)) if values is None else values, 7)
    order = np.arange(rows) if order is None else order
    lines = [
        f"{person},{activities[row]},{time_ns[row]},{','.join(map(repr, xyz[row].tolist()))};"
        for row in order
    ]
    path = path_of(root, person, device, sensor)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return time_ns[order], xyz[order]


def open_one(reader: Reader, name: str = "1600-phone") -> None:
    with reader.open(find_ref(reader, name)) as recording:
        for sensor in recording.devices[0].sensors:
            read_sensor(sensor)


def test_phone_and_watch_are_recordings_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "wisdm-dataset"
    acc_ns, acc_xyz = write(root, "A" * 40 + "S" * 41)
    gyr_ns, gyr_xyz = write(root, "A" * 30 + "S" * 20, sensor="gyro")
    write(root, "A" * 5, device="watch")
    write(root, "A" * 5, person=1650)
    (root / "activity_key.txt").write_text("walking = A\n")
    reader = create_reader("wisdm", str(tmp_path))
    assert [ref.name for ref in reader.recordings()] == ["1600-phone", "1600-watch", "1650-phone"]
    with reader.open(find_ref(reader, "1600-phone")) as recording:
        (device,) = recording.devices
        acc_time, acc_values = read_sensor(sensor_of(device, "acc_x"))
        gyr_time, gyr_values = read_sensor(sensor_of(device, "gyr_x"))
    np.testing.assert_allclose(acc_time, acc_ns / 1e9, rtol=0, atol=1e-7)
    np.testing.assert_allclose(gyr_time, gyr_ns / 1e9, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(acc_values, acc_xyz)
    np.testing.assert_array_equal(gyr_values, gyr_xyz)
    assert [sensor.unit for sensor in device.sensors] == ["m/s2", "rad/s"]
    assert (device.name, device.placement, device.nominal_rate_hz) == ("phone", "pocket", 20.0)
    assert (recording.dataset, recording.person) == ("wisdm", "wisdm-1600")
    assert recording.notes == ()
    seconds = acc_ns / 1e9  # labels are those of the accelerometer's file
    assert spans(recording) == [
        (round(seconds[0], 6), round(seconds[39], 6), "walking"),
        (round(seconds[40], 6), round(seconds[80], 6), "folding laundry"),
    ]
    with reader.open(find_ref(reader, "1600-watch")) as recording:
        assert recording.devices[0].placement == "wrist"
        assert recording.notes == ("no gyroscope file",)


def test_rows_out_of_order_are_labelled_by_time(tmp_path: Path) -> None:
    order = RNG.permutation(30)
    time_ns, xyz = write(tmp_path, "D" * 10 + "M" * 20, order=order)
    reader = create_reader("wisdm", str(tmp_path))
    with reader.open(find_ref(reader, "1600-phone")) as recording:
        time_s, values = read_sensor(recording.devices[0].sensors[0])
    np.testing.assert_allclose(time_s, time_ns / 1e9)
    np.testing.assert_array_equal(values, xyz)
    assert [label for _, _, label in recording.labels] == ["sitting", "kicking a ball"]
    last, first = ((START_NS + row * SPACING_NS) / 1e9 for row in (9, 10))
    assert recording.labels[0].end_s == pytest.approx(last)
    assert recording.labels[1].start_s == pytest.approx(first)


def test_a_pause_ends_a_span(tmp_path: Path) -> None:
    write(tmp_path, "B" * 60)
    path = path_of(tmp_path, 1600, "phone", "accel")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:20] + lines[45:]) + "\n")
    reader = create_reader("wisdm", str(tmp_path))
    with reader.open(find_ref(reader, "1600-phone")) as recording:
        assert [(round(e - s, 6), label) for s, e, label in recording.labels] == [
            (round(19 * SPACING_NS / 1e9, 6), "jogging"),
            (round(14 * SPACING_NS / 1e9, 6), "jogging"),
        ]


@pytest.mark.parametrize("letter", ["N", "T", "a", ""])
def test_unknown_activities_are_named(tmp_path: Path, letter: str) -> None:
    write(tmp_path, "A" * 9)
    path = path_of(tmp_path, 1600, "phone", "accel")
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace(",A,", f",{letter},")
    path.write_text("\n".join(lines) + "\n")
    message = r"data_1600_accel_phone.txt: row 5 has the unknown activity code .*; known are A, B"
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("wisdm", str(tmp_path)))


def test_text_in_numbers_is_named(tmp_path: Path) -> None:
    write(tmp_path, "A" * 9)
    path = path_of(tmp_path, 1600, "phone", "accel")
    lines = path.read_text().splitlines()
    cells = lines[4].split(",")
    path.write_text("\n".join([*lines[:4], ",".join([*cells[:4], "oops", cells[5]]), *lines[5:]]))
    with pytest.raises(ValueError, match=r"data_1600_accel_phone\.txt.*oops"):
        open_one(create_reader("wisdm", str(tmp_path)))


def test_empty_and_truncated_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, "A" * 9)
    path = path_of(tmp_path, 1600, "phone", "accel")
    content = path.read_bytes()
    reader = create_reader("wisdm", str(tmp_path))
    for damaged in (b"", content[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"data_1600_accel_phone\.txt"):
            open_one(reader)


def test_a_gyroscope_alone_is_told(tmp_path: Path) -> None:
    write(tmp_path, "A" * 9, sensor="gyro")
    message = r"data_1600_gyro_phone.txt has no data_1600_accel_phone.txt next to it"
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("wisdm", str(tmp_path)))


def test_missing_and_double_files_are_told(tmp_path: Path) -> None:
    reader = create_reader("wisdm", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no raw/phone/accel/data_<person>_accel_phone"):
        reader.recordings()
    write(tmp_path / "one", "A")
    write(tmp_path / "twö", "A")
    with pytest.raises(ValueError, match=r"twö/raw/.*data_1600_accel_phone.txt have one name"):
        reader.recordings()
