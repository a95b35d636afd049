import itertools
from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader, hhar
from shards.readers.base import Reader
from tests.reading import find_ref, read_sensor, sensor_of, spans

HEADER = "Index,Arrival_Time,Creation_Time,x,y,z,User,Model,Device,gt"
UNIX_NS = 1_424_696_631_913_248_572  # of the first row of the published file
RNG = np.random.default_rng(2)


class Rows:
    """Rows of one user and device, as the file has them."""

    def __init__(
        self, user: str, device: str, activities: str, start_ns: int = UNIX_NS, rate_hz: int = 200
    ) -> None:
        self.activities = activities.split()
        rows = len(self.activities)
        self.user, self.device = user, device
        self.created_ns = start_ns + np.arange(rows) * (10**9 // rate_hz)
        # The application gets them 2 s later by the wall clock, in bursts of 20 ms.
        elapsed_ms = (self.created_ns - start_ns) // 10**6
        self.arrived_ms = UNIX_NS // 10**6 + 2000 + (elapsed_ms // 20 + 1) * 20
        self.xyz = np.round(RNG.normal(0, 3, (rows, 3)), 6)

    def lines(self) -> list[str]:
        model = self.device.rpartition("_")[0]
        return [
            f"{i},{self.arrived_ms[i]},{self.created_ns[i]},{','.join(map(repr, xyz))},"
            f"{self.user},{model},{self.device},{self.activities[i]}"
            for i, xyz in enumerate(self.xyz.tolist())
        ]


def write(folder: Path, name: str, *parts: list[str], header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join([header, *itertools.chain(*parts)]) + "\n", encoding="utf-8")
    return path


def open_one(reader: Reader, name: str = "a-nexus4_1") -> tuple[str, ...]:
    with reader.open(find_ref(reader, name)) as recording:
        return recording.notes


def runs(*counted: tuple[str, int]) -> str:
    return " ".join(name for name, count in counted for _ in range(count))


def test_rows_of_one_user_and_device_are_a_recording(tmp_path: Path) -> None:
    labels = runs(("stand", 40), ("null", 10), ("walk", 30), ("stairsup", 21))
    acc = {
        (user, device): Rows(user, device, labels)
        for user in "ab"
        for device in ("nexus4_1", "s3mini_2")
    }
    gyr = Rows("a", "nexus4_1", labels)
    folder = tmp_path / "Activity recognition exp"
    write(folder, "Phones_accelerometer.csv", *(rows.lines() for rows in acc.values()))
    write(folder, "Phones_gyroscope.csv", gyr.lines())
    watch = Rows("a", "gear_1", labels, start_ns=27_920_678_471_000, rate_hz=100)
    write(folder, "Watch_accelerometer.csv", watch.lines())
    reader = create_reader("hhar", str(tmp_path))
    names = [ref.name for ref in reader.recordings()]
    assert names == ["a-gear_1", "a-nexus4_1", "a-s3mini_2", "b-nexus4_1", "b-s3mini_2"]

    with reader.open(find_ref(reader, "a-nexus4_1")) as recording:
        (device,) = recording.devices
        acc_time, acc_values = read_sensor(sensor_of(device, "acc_x"))
        gyr_time, gyr_values = read_sensor(sensor_of(device, "gyr_x"))
    np.testing.assert_array_equal(acc_values, acc["a", "nexus4_1"].xyz)
    np.testing.assert_array_equal(gyr_values, gyr.xyz)
    start_s = UNIX_NS / 1e9
    np.testing.assert_allclose(acc_time - start_s, np.arange(101) / 200, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(acc_time, gyr_time)
    assert [sensor.unit for sensor in device.sensors] == ["m/s2", "rad/s"]
    assert (device.name, device.placement, device.nominal_rate_hz) == ("nexus4_1", "waist", 200)
    assert (recording.dataset, recording.person) == ("hhar", "hhar-a")
    assert [(s - start_s, e - start_s, label) for s, e, label in recording.labels] == [
        (pytest.approx(0.0, abs=1e-6), pytest.approx(0.195, abs=1e-6), "standing"),
        (pytest.approx(0.25, abs=1e-6), pytest.approx(0.395, abs=1e-6), "walking"),
        (pytest.approx(0.4, abs=1e-6), pytest.approx(0.5, abs=1e-6), "walking upstairs"),
    ]
    assert recording.notes == ()

    with reader.open(find_ref(reader, "a-gear_1")) as recording:
        (device,) = recording.devices
    assert (device.placement, device.nominal_rate_hz) == ("wrist", 100.0)
    assert recording.notes == ("no gyroscope rows",)
    first = spans(recording)[0]
    assert first == (27920.678471, 27921.068471, "standing")


def test_only_the_blocks_of_a_recording_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hhar, "_BLOCK_BYTES", 4096)
    parts = [Rows(user, "nexus4_1", runs(("walk", 400))) for user in "abcdefghi"]
    again = Rows("c", "nexus4_1", runs(("sit", 50)), start_ns=UNIX_NS + 10 * 10**9)
    lines = [*(rows.lines() for rows in parts), again.lines()]
    path = write(tmp_path, "Phones_accelerometer.csv", *lines)
    reader = create_reader("hhar", str(tmp_path))
    refs = {ref.name: ref for ref in reader.recordings()}
    assert list(refs) == [f"{user}-nexus4_1" for user in "abcdefghi"]
    share = {
        name: sum(stop - start for start, stop in ref.details["sensors"]["accelerometer"]["ranges"])
        / path.stat().st_size
        for name, ref in refs.items()
    }
    assert 0.1 < share["d-nexus4_1"] < 0.15
    assert len(refs["c-nexus4_1"].details["sensors"]["accelerometer"]["ranges"]) == 2
    for index, user in enumerate("abcdefghi"):
        with reader.open(refs[f"{user}-nexus4_1"]) as recording:
            _, values = read_sensor(recording.devices[0].sensors[0])
        expected = [parts[index].xyz, *([again.xyz] if user == "c" else [])]
        np.testing.assert_array_equal(values, np.concatenate(expected))


def test_unordered_rows_stay_in_file_order_and_labels_follow_time(tmp_path: Path) -> None:
    rows = Rows("a", "s3_1", runs(("sit", 10), ("bike", 11)), start_ns=0, rate_hz=100)
    lines = rows.lines()
    order = RNG.permutation(len(lines))
    write(tmp_path, "Phones_accelerometer.csv", [lines[i] for i in order])
    reader = create_reader("hhar", str(tmp_path))
    with reader.open(find_ref(reader, "a-s3_1")) as recording:
        time_s, _ = read_sensor(recording.devices[0].sensors[0])
    np.testing.assert_allclose(time_s, order / 100)
    assert spans(recording) == [(0.0, 0.09, "sitting"), (0.1, 0.2, "cycling")]


def test_a_gyroscope_with_another_clock_is_put_on_the_accelerometers(tmp_path: Path) -> None:
    labels = runs(("walk", 500))
    write(tmp_path, "Phones_accelerometer.csv", Rows("a", "nexus4_1", labels).lines())
    booted = Rows("a", "nexus4_1", labels, start_ns=123_000_000_000)
    write(tmp_path, "Phones_gyroscope.csv", booted.lines())
    reader = create_reader("hhar", str(tmp_path))
    with reader.open(find_ref(reader, "a-nexus4_1")) as recording:
        (device,) = recording.devices
        acc_time, _ = read_sensor(sensor_of(device, "acc_x"))
        gyr_time, _ = read_sensor(sensor_of(device, "gyr_x"))
    np.testing.assert_allclose(gyr_time, acc_time, rtol=0, atol=0.02)
    (note,) = recording.notes
    assert note.startswith(f"the gyroscope's clock was {123 - UNIX_NS / 1e9:+.3f} s from")


def test_a_clock_that_does_not_count_nanoseconds_is_noted(tmp_path: Path) -> None:
    rows = Rows("a", "nexus4_1", runs(("walk", 2000)), start_ns=0)
    rows.created_ns //= 1000  # microseconds
    write(tmp_path, "Phones_accelerometer.csv", rows.lines())
    notes = open_one(create_reader("hhar", str(tmp_path)))
    assert notes[0].startswith(
        "Phones_accelerometer.csv: Creation_Time spans 0.0 s but Arrival_Time 10.0 s"
    )


def test_text_in_numbers_fails_its_own_recording_only(tmp_path: Path) -> None:
    lines = Rows("a", "nexus4_1", runs(("walk", 20))).lines()
    lines[7] = lines[7].replace(lines[7].split(",")[3], "n/a", 1)
    other = Rows("b", "nexus4_1", runs(("walk", 20)))
    write(tmp_path, "Phones_accelerometer.csv", lines, other.lines())
    reader = create_reader("hhar", str(tmp_path))
    with reader.open(find_ref(reader, "a-nexus4_1")) as recording:
        sensor = recording.devices[0].sensors[0]
        message = r"Phones_accelerometer.csv: column x of the row with Index 7 holds 'n/a', not a"
        with pytest.raises(ValueError, match=message):
            read_sensor(sensor)
    with reader.open(find_ref(reader, "b-nexus4_1")) as recording:
        np.testing.assert_array_equal(read_sensor(recording.devices[0].sensors[0])[1], other.xyz)


def test_empty_cells_are_invalid_not_zero(tmp_path: Path) -> None:
    rows = Rows("a", "nexus4_1", runs(("walk", 20)))
    lines = rows.lines()
    lines[3] = lines[3].replace(repr(rows.xyz[3, 1].item()), "", 1)
    lines[5] = lines[5].replace(str(rows.created_ns[5]), "", 1)
    write(tmp_path, "Phones_accelerometer.csv", lines)
    reader = create_reader("hhar", str(tmp_path))
    with reader.open(find_ref(reader, "a-nexus4_1")) as recording:
        time_s, values = read_sensor(recording.devices[0].sensors[0])
    assert np.isnan(values).nonzero()[0].tolist() == [3]
    assert np.isnan(values).nonzero()[1].tolist() == [1]
    assert np.isnan(time_s).nonzero()[0].tolist() == [5]


def test_unknown_activities_are_named(tmp_path: Path) -> None:
    labels = runs(("walk", 3), ("fly", 1), ("walk", 3))
    write(tmp_path, "Phones_accelerometer.csv", Rows("a", "nexus4_1", labels).lines())
    message = r"Phones_accelerometer.csv: user a, device nexus4_1: row 4 .*'fly'; known are bike"
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("hhar", str(tmp_path)))


def test_lines_cut_short_are_counted(tmp_path: Path) -> None:
    rows = Rows("a", "nexus4_1", runs(("walk", 20)))
    path = write(tmp_path, "Phones_accelerometer.csv", rows.lines())
    path.write_bytes(path.read_bytes()[:-60])
    reader = create_reader("hhar", str(tmp_path))
    with reader.open(find_ref(reader, "a-nexus4_1")) as recording:
        assert recording.notes[0].startswith(
            "left out 1 line of Phones_accelerometer.csv without ten"
        )
        _, values = read_sensor(recording.devices[0].sensors[0])
    np.testing.assert_array_equal(values, rows.xyz[:-1])


def test_a_file_that_became_shorter_since_it_was_listed_is_told(tmp_path: Path) -> None:
    lines = Rows("a", "nexus4_1", runs(("walk", 40))).lines()
    path = write(tmp_path, "Phones_accelerometer.csv", lines)
    reader = create_reader("hhar", str(tmp_path))
    (ref,) = reader.recordings()
    write(tmp_path, "Phones_accelerometer.csv", lines[:30])
    size = path.stat().st_size
    message = rf"Phones_accelerometer\.csv ends at byte {size}, before rows that it had when"
    with pytest.raises(ValueError, match=message), reader.open(ref):
        pass


def test_files_of_another_format_are_named(tmp_path: Path) -> None:
    reader = create_reader("hhar", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no Phones_accelerometer\.csv, Watch_"):
        reader.recordings()
    path = write(tmp_path, "Watch_accelerometer.csv", header="id,x,y,z")
    with pytest.raises(ValueError, match=r"Watch_accelerometer.csv: its first line is 'id,x,y,z'"):
        reader.recordings()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Watch_accelerometer.csv: its first line is ''"):
        reader.recordings()
    path.write_bytes(HEADER.encode() + b"\n0,1,2,3,4,5,\xff,nexus4,nexus4_1,walk\n")
    with pytest.raises(ValueError, match=r"Watch_accelerometer.csv holds bytes that are no text"):
        reader.recordings()
    path.write_bytes(HEADER.encode() + b"\n")
    with pytest.raises(FileNotFoundError):
        reader.recordings()


def test_a_gyroscope_without_accelerometer_is_told(tmp_path: Path) -> None:
    write(tmp_path, "Phones_gyroscope.csv", Rows("a", "nexus4_1", runs(("walk", 9))).lines())
    with pytest.raises(ValueError, match="no accelerometer rows of user a and device nexus4_1"):
        open_one(create_reader("hhar", str(tmp_path)))


def test_rows_without_any_time_are_told(tmp_path: Path) -> None:
    rows = Rows("a", "nexus4_1", runs(("walk", 9)))
    lines = [
        line.replace(str(ns), "") for line, ns in zip(rows.lines(), rows.created_ns, strict=True)
    ]
    write(tmp_path, "Phones_accelerometer.csv", lines)
    with pytest.raises(ValueError, match="device nexus4_1 has no row with Creation_Time"):
        open_one(create_reader("hhar", str(tmp_path)))


def test_two_copies_are_told(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        lines = Rows("a", "nexus4_1", runs(("walk", 9))).lines()
        write(tmp_path / folder, "Phones_accelerometer.csv", lines)
    with pytest.raises(ValueError, match=r"two/Phones_accelerometer.csv is there twice"):
        create_reader("hhar", str(tmp_path)).recordings()
