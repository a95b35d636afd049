"""Records of an IMU from the bytes of a VRS file: those of the library, or none at all."""

import struct
from pathlib import Path

import numpy as np
import pytest

from shards.files import vrs, vrs_records
from shards.files.source import Source
from shards.files.vrs import imu_labels, open_vrs
from shards.files.vrs_records import UnusualFileError, stream_records
from tests.reading import read_sensor
from tests.recordings import recording_path
from tests.vrs_factory import IMU_LEFT, IMU_RIGHT, make_imu, write_vrs

data_provider = pytest.importorskip("projectaria_tools.core.data_provider")

HEAD = dict.fromkeys(imu_labels("both"), "head")
FIELDS = {"accelerometer": ("<f4", 3), "capture_timestamp_ns": ("<i8", 1)}
SIZE, VERSION, TIME, COMPRESSION = 0, 12, 16, 27  # where the header of a record has them
RECORD = 32 + 71  # bytes of a made IMU record


def make(path: Path, count: int = 300) -> Path:
    """Two IMUs of ``count`` records each, at different rates."""
    times = {IMU_LEFT: 1_250_000, IMU_RIGHT: 1_000_000}
    write_vrs(
        path,
        {s: make_imu(10**9 + step * np.arange(count), seed=step) for s, step in times.items()},
    )
    return path


def samples(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Times and values of every sensor."""
    with open_vrs(Source(str(path.parent)), path.name) as file:
        return [read_sensor(sensor) for d in file.imu_devices(HEAD) for sensor in d.sensors]


@pytest.mark.parametrize("name", ["aria_gen1.vrs", "aria_gen2.vrs"])
@pytest.mark.parametrize("piece", [200, 1000, 2**16])
def test_values_are_the_librarys(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vrs_records, "PIECE_BYTES", piece)
    path = recording_path(name)
    provider = data_provider.create_vrs_data_provider(str(path))
    for label in imu_labels("both"):
        stream = provider.get_stream_id_from_label(label)
        number = stream.get_type_id().value, stream.get_instance_id()
        rows = np.concatenate([*stream_records(path, number, vrs._STORED)])
        assert len(rows) == provider.get_num_data(stream)
        records = [provider.get_imu_data_by_index(stream, n) for n in range(len(rows))]
        for name, (_, _, attribute) in vrs._FIELDS.items():
            expected = [getattr(record, attribute) for record in records]
            np.testing.assert_array_equal(rows[name], expected)


@pytest.mark.parametrize("name", ["aria_gen1.vrs", "aria_gen2.vrs", "made.vrs"])
def test_both_ways_of_reading_give_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / name) if name == "made.vrs" else recording_path(name)
    monkeypatch.setattr(vrs_records, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(vrs, "CHUNK_RECORDS", 128)
    asked = []
    one_by_one = vrs.VrsFile._one_by_one

    def counted(self, label, stream, numbers):
        numbers = list(numbers)
        asked.append(len(numbers))
        return one_by_one(self, label, stream, numbers)

    monkeypatch.setattr(vrs.VrsFile, "_one_by_one", counted)
    at_once = samples(path)
    assert sum(asked) < 12  # a few of each IMU, to compare
    monkeypatch.setattr(vrs.VrsFile, "_at_once", lambda *_: None)
    for ours, theirs in zip(at_once, samples(path), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (COMPRESSION, b"\1"),
        (SIZE, struct.pack("<I", RECORD + 1)),  # then the next record begins in the middle
        (SIZE, bytes(4)),
        (VERSION, struct.pack("<I", 7)),
        (TIME, struct.pack("<d", 0.5)),  # earlier than the one before
    ],
)
def test_unusual_records_are_left_to_the_library(tmp_path: Path, place: int, value: bytes) -> None:
    path = make(tmp_path / "a.vrs")
    content = bytearray(path.read_bytes())
    last = content.rindex(struct.pack("<IIi", RECORD, RECORD, IMU_LEFT[0]))  # of the slower one
    content[last + place : last + place + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(UnusualFileError):
        list(stream_records(path, IMU_LEFT, FIELDS))


def test_other_streams_fields_and_files(tmp_path: Path) -> None:
    path = make(tmp_path / "a.vrs")
    assert [len(rows) for rows in stream_records(path, IMU_LEFT, FIELDS)] == [300]
    assert list(stream_records(path, (1202, 3), FIELDS)) == []
    for other in ({"pressure": ("<f4", 1)}, {"gyroscope": ("<f4", 1)}, {"gyroscope": ("<i8", 3)}):
        with pytest.raises(UnusualFileError, match="another layout"):
            list(stream_records(path, IMU_LEFT, FIELDS | other))
    content = path.read_bytes()
    for damaged in (b"", content[:50], content[:-5], content[:3000] + b"x" * 3000 + content[6000:]):
        path.write_bytes(damaged)
        with pytest.raises(UnusualFileError):
            list(stream_records(path, IMU_LEFT, FIELDS))


def test_a_value_that_the_library_reads_otherwise_is_the_librarys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.vrs")
    expected = samples(path)
    read = vrs.stream_records

    def wrong(*arguments):
        for rows in read(*arguments):
            rows["gyroscope"][-1] += 1
            yield rows

    monkeypatch.setattr(vrs, "stream_records", wrong)
    for ours, theirs in zip(samples(path), expected, strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
