import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shards.readers import create_reader
from shards.readers.base import Reader
from shards.readers.realworld import ZipSource
from tests.reading import find_ref, read_sensor, sensor_of, spans

RNG = np.random.default_rng(4)
START_MS = 1_435_993_000_000
NAMES = {"acc": "acc", "gyr": "Gyroscope"}


def table(rows: int, start_s: float = 0.0, order: np.ndarray | None = None) -> np.ndarray:
    """attr_time (ms), x, y, z of rows of 20 ms, in ``order``."""
    time_ms = START_MS + 1000 * start_s + 20 * np.arange(rows)
    values = np.column_stack([time_ms, np.round(RNG.normal(0, 3, (rows, 3)), 6)])
    return values if order is None else values[order]


def csv(rows: np.ndarray) -> bytes:
    lines = [
        f"{index + 1},{int(row[0])},{','.join(map(repr, row[1:].tolist()))}"
        for index, row in enumerate(rows)
    ]
    return "\n".join(["id,attr_time,attr_x,attr_y,attr_z", *lines, ""]).encode()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write(root: Path, name: str, members: dict[str, bytes], person: int = 1) -> Path:
    path = root / f"proband{person}" / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipped(members))
    return path


def open_one(reader: Reader, name: str = "proband01-walking") -> tuple[str, ...]:
    with reader.open(find_ref(reader, name)) as recording:
        for device in recording.devices:
            for sensor in device.sensors:
                read_sensor(sensor)
    return recording.notes


def test_a_zip_of_an_activity_is_a_recording_of_its_placements(tmp_path: Path) -> None:
    order = RNG.permutation(101)
    tables = {
        ("acc", "chest"): table(101, order=order),
        ("acc", "upperarm"): table(101, start_s=0.013),
        ("gyr", "chest"): table(99, start_s=0.007),
        ("gyr", "upperarm"): table(99, start_s=0.011),
    }
    for kind in ("acc", "gyr"):
        members = {
            f"{NAMES[kind]}_walking_{placement}.csv": csv(rows)
            for (sensor, placement), rows in tables.items()
            if sensor == kind
        }
        write(tmp_path, f"{kind}_walking_csv.zip", {**members, "readMe.txt": b"SensorManager"})
    write(tmp_path, "mag_walking_csv.zip", {})
    write(tmp_path, "acc_lying_csv.zip", {"acc_lying_head.csv": csv(table(5))}, person=12)
    reader = create_reader("realworld", str(tmp_path))
    assert [ref.name for ref in reader.recordings()] == ["proband01-walking", "proband12-lying"]
    with reader.open(find_ref(reader, "proband01-walking")) as recording:
        assert [device.placement for device in recording.devices] == ["chest", "upper arm"]
        for device in recording.devices:
            for kind, unit in (("acc", "m/s2"), ("gyr", "rad/s")):
                sensor = sensor_of(device, f"{kind}_x")
                time_s, values = read_sensor(sensor)
                expected = tables[kind, device.name]
                np.testing.assert_allclose(time_s, np.floor(expected[:, 0]) / 1000, atol=1e-6)
                np.testing.assert_array_equal(values, expected[:, 1:])
                assert sensor.unit == unit
            assert device.nominal_rate_hz == 50.0
    assert (recording.dataset, recording.person) == ("realworld", "realworld-1")
    start_s = START_MS / 1000
    assert spans(recording) == [(start_s, start_s + 2.013, "walking")]
    assert recording.notes == ()


def test_parts_in_zips_within_the_zip_are_joined_by_time(tmp_path: Path) -> None:
    """As of probands 4, 7 and 14: the first part of the gyroscope alone bears no number."""
    parts = {1: (table(60), table(60)), 2: (table(80, start_s=30), table(80, start_s=30))}
    acc = {
        f"acc_climbingup_{part}_csv.zip": zipped(
            {f"acc_climbingup{'' if part == 1 else '_2'}_forearm.csv": csv(tables[0])}
        )
        for part, tables in parts.items()
    }
    gyr = {
        f"gyr_climbingup{'' if part == 1 else '_2'}_csv.zip": zipped(
            {f"Gyroscope_climbingup{'' if part == 1 else '_2'}_forearm.csv": csv(tables[1])}
        )
        for part, tables in parts.items()
    }
    write(tmp_path, "acc_climbingup_csv.zip", acc, person=4)
    write(tmp_path, "gyr_climbingup_csv.zip", gyr, person=4)
    reader = create_reader("realworld", str(tmp_path))
    with reader.open(find_ref(reader, "proband04-climbingup")) as recording:
        (device,) = recording.devices
        for index, channel in enumerate(("acc_x", "gyr_x")):
            time_s, values = read_sensor(sensor_of(device, channel))
            by_time = np.argsort(time_s)
            expected = np.concatenate([parts[1][index], parts[2][index]])
            np.testing.assert_allclose(time_s[by_time], expected[:, 0] / 1000)
            np.testing.assert_array_equal(values[by_time], expected[:, 1:])
    start_s = START_MS / 1000
    assert spans(recording) == [
        (start_s, start_s + 1.18, "walking upstairs"),
        (start_s + 30, start_s + 31.58, "walking upstairs"),
    ]


def test_a_part_in_a_zip_of_its_own_belongs_to_the_activity(tmp_path: Path) -> None:
    write(tmp_path, "acc_walking_csv.zip", {"acc_walking_chest.csv": csv(table(20))})
    second = {"acc_walking_2_chest.csv": csv(table(30, start_s=60))}
    write(tmp_path, "acc_walking_2_csv.zip", second)
    reader = create_reader("realworld", str(tmp_path))
    (ref,) = reader.recordings()
    assert len(ref.files) == 2
    with reader.open(ref) as recording:
        assert len(read_sensor(recording.devices[0].sensors[0])[0]) == 50
        assert len(recording.labels) == 2


def test_missing_sensors_and_unknown_files_are_told(tmp_path: Path) -> None:
    rows = csv(table(20))
    acc = {f"acc_walking_{place}.csv": rows for place in ("chest", "waist", "nose")}
    write(tmp_path, "acc_walking_csv.zip", {**acc, "acc_running_chest.csv": rows})
    gyr = {f"Gyroscope_walking_{place}.csv": rows for place in ("chest", "shin")}
    write(tmp_path, "gyr_walking_csv.zip", gyr)
    reader = create_reader("realworld", str(tmp_path))
    assert open_one(reader) == ("no accelerometer file at shin", "no gyroscope file at waist")
    with reader.open(find_ref(reader, "proband01-walking")) as recording:
        assert recording.unread == (
            "proband1/data/acc_walking_csv.zip: acc_running_chest.csv, acc_walking_nose.csv, not "
            "part of any recording",
        )


def test_unknown_activities_fail_when_opened(tmp_path: Path) -> None:
    write(tmp_path, "acc_walking_csv.zip", {"acc_walking_chest.csv": csv(table(20))})
    write(tmp_path, "acc_flying_csv.zip", {"acc_flying_chest.csv": csv(table(20))})
    reader = create_reader("realworld", str(tmp_path))
    open_one(reader)
    with pytest.raises(ValueError, match=r"acc_flying_csv.zip: unknown activity flying; known"):
        open_one(reader, "proband01-flying")


def test_zips_without_an_accelerometer_are_told(tmp_path: Path) -> None:
    write(tmp_path, "gyr_walking_csv.zip", {"Gyroscope_walking_chest.csv": csv(table(20))})
    with pytest.raises(ValueError, match=r"no file acc_walking_<placement>\.csv in it"):
        open_one(create_reader("realworld", str(tmp_path)))
    write(tmp_path, "gyr_walking_csv.zip", {})
    with pytest.raises(ValueError, match=r"no file acc_walking_<placement>\.csv in it"):
        open_one(create_reader("realworld", str(tmp_path)))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("nested", [False, True])
def test_empty_and_truncated_zips_are_named(tmp_path: Path, share: float, nested: bool) -> None:
    members = {"acc_walking_chest.csv": csv(table(500))}
    content = zipped(members)
    cut = content[: int(share * len(content))]
    root = tmp_path / "Größe"
    path = write(root, "acc_walking_csv.zip", {"acc_walking_1_csv.zip": cut})
    if not nested:
        path.write_bytes(cut)
    place = "acc_walking_csv.zip/acc_walking_1_csv.zip" if nested else "acc_walking_csv.zip"
    with pytest.raises(ValueError, match=rf"Größe/proband1/data/{place} is not a complete zip"):
        open_one(create_reader("realworld", str(tmp_path)))


def test_altered_bytes_in_a_zip_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "acc_walking_csv.zip", {"acc_walking_chest.csv": csv(table(500))})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    message = r"acc_walking_csv\.zip/acc_walking_chest\.csv"
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("realworld", str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "acc_walking_chest.csv"),
        (b"id,attr_time,attr_x,attr_y\n1,5,0,0\n", "attr_z"),
        (csv(table(5)).replace(b"\n3,", b"\n3,noon"), "noon"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, "acc_walking_csv.zip", {"acc_walking_chest.csv": content})
    with pytest.raises(ValueError, match=message):
        open_one(create_reader("realworld", str(tmp_path)))


def test_a_folder_without_zips_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no proband<person>/data/acc_<activity>_csv"):
        create_reader("realworld", str(tmp_path)).recordings()


def test_members_are_streams_that_close_their_zips(tmp_path: Path) -> None:
    inner = zipped({"ü.csv": b"inner", "folder/b.txt": b"text"})
    (tmp_path / "a.zip").write_bytes(zipped({"b.zip": inner, "a.csv": b"outer"}))
    source = ZipSource(str(tmp_path))
    assert source.members("a.zip") == [
        "a.zip/a.csv",
        "a.zip/b.zip/folder/b.txt",
        "a.zip/b.zip/ü.csv",
    ]
    stream = source.open("a.zip/b.zip/ü.csv")
    assert (stream.read(2), stream.read()) == (b"in", b"ner")
    stream.close()
    assert stream.closed
    with source.open("a.zip") as plain:
        assert plain.read(2) == b"PK"
