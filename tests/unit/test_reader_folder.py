import json
import re
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from primus_scale.signal.units import UNIT_FACTORS
from shards.readers import create_reader
from shards.recording import LabelSpan, Narration, Recording, WindowSchema
from tests.conftest import require
from tests.folder_factory import ACC, NUMBERED, describe, description, read, sensor, write_csv
from tests.reading import read_sensor, spans
from tests.video_factory import numbered_pictures, read_number, write_video

DOCS = (Path(__file__).parents[2] / "docs" / "folder.md").read_text()
RNG = np.random.default_rng(5)


def documented(comment: str) -> str:
    """The block of docs/folder.md below this comment, as it stands there."""
    match = re.search(rf"<!-- {re.escape(comment)} -->\n```\w+\n(.*?)```", DOCS, re.DOTALL)
    assert match, comment
    return match[1]


def samples(recording: Recording) -> list[tuple[np.ndarray, np.ndarray]]:
    return [read_sensor(sensor) for device in recording.devices for sensor in device.sensors]


@pytest.fixture
def rows(tmp_path: Path) -> np.ndarray:
    """Three columns, as they stand in ``wrist.csv`` at the top of the source."""
    values = RNG.normal(0, 1, (40, 3))
    write_csv(tmp_path / "wrist.csv", dict(zip(ACC.values(), values.T, strict=True)))
    return values


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    folder = tmp_path / "anna"
    folder.mkdir()
    for name in re.findall(r"<!-- file: (.*?) -->", DOCS):
        (tmp_path / name).write_text(documented(f"file: {name}"))
    head = RNG.normal(0, 5, (300, 3))
    np.save(folder / "head.npy", head)
    write_video(folder / "ride.mp4", numbered_pictures(45))

    def use(recording: Recording) -> None:
        watch, glasses = recording.devices
        assert (watch.name, watch.placement, watch.nominal_rate_hz) == ("watch", "left wrist", None)
        assert (glasses.name, glasses.placement, glasses.nominal_rate_hz) == (
            "glasses",
            "head",
            100,
        )
        acc, gyr = watch.sensors
        assert (acc.channels, acc.unit, acc.limit) == (("acc_x", "acc_y", "acc_z"), "g", 8)
        assert (gyr.channels, gyr.unit, gyr.limit) == (("gyr_x", "gyr_y", "gyr_z"), "deg/s", None)
        time_s, values = read_sensor(acc)
        np.testing.assert_allclose(time_s, [0, 0.02, 0.04])
        np.testing.assert_array_equal(values[1], [0.02, 0.02, 0.99])
        np.testing.assert_array_equal(read_sensor(gyr)[1][2], [1.4, 0.1, -3.2])
        time_s, values = read_sensor(glasses.sensors[0])
        np.testing.assert_allclose(time_s, 0.25 + np.arange(300) / 100)
        np.testing.assert_array_equal(values, head)
        assert recording.narrations == (Narration(0.5, 0.9, "A person opens the door"),)
        assert spans(recording) == [(0, 1.5, "walking"), (1.5, 2, "standing")]
        assert (recording.name, recording.person) == ("anna", "folder-anna")
        assert (recording.dataset, recording.notes) == ("folder", ())
        assert recording.sync == (
            "as recording.yaml states: wrist.csv by its column t (ms); head.npy at 100 Hz from "
            "0.25 s; video from 0.5 s; narrations shifted by +0.5 s"
        )
        assert recording.frames is not None
        np.testing.assert_allclose(recording.frames.times_s(), 0.5 + np.arange(45) / 30)
        assert [read_number(one) for one in recording.frames.pictures([7, 44])] == [7, 44]

    read(tmp_path, use)


def test_the_documentation_names_what_there_is() -> None:
    for unit in UNIT_FACTORS:
        assert f"`{unit}`" in DOCS


def test_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    columns = {"t": np.arange(50) * 20 + 10**9, "ax": RNG.normal(0, 1, 50), "b b": np.arange(50)}
    columns["ax"][[3, 7]] = np.nan
    write_csv(tmp_path / "wrist.csv", columns, delimiter=";")
    pa.parquet.write_table(pa.table(columns), tmp_path / "wrist.parquet")
    time = {"column": "t", "unit": "us", "offset_s": -1000}
    for file, more in (("wrist.csv", {"delimiter": ";"}), ("wrist.parquet", {})):
        keys = sensor(file=file, columns={"acc_x": "ax", "acc_y": "b b"}, rate_hz=None, time=time)
        describe(tmp_path, description(keys | more))
        ((time_s, values),) = read(tmp_path, samples)
        np.testing.assert_allclose(time_s, np.arange(50) * 20e-6, atol=1e-9)
        # NaN stays, to be counted by the signal path.
        np.testing.assert_array_equal(values, np.stack([columns["ax"], np.arange(50)], axis=1))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_and_columns_of_npy(tmp_path: Path, unit: str) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    array = np.stack([np.arange(30) * 2 * scale, np.arange(30), -np.arange(30)], axis=1)
    np.save(tmp_path / "wrist.npy", array.astype(np.int64))
    columns = {"acc_x": "2", "acc_z": "1"}
    keys = sensor(
        file="wrist.npy", columns=columns, rate_hz=None, time={"column": "0", "unit": unit}
    )
    describe(tmp_path, description(keys))
    ((time_s, values),) = read(tmp_path, samples)
    np.testing.assert_allclose(time_s, np.arange(30) * 2.0)
    np.testing.assert_array_equal(values, np.stack([-np.arange(30), np.arange(30)], axis=1))
    assert values.dtype == np.float64


def resident_bytes() -> int:
    """Memory of this process that counts against its limit, pages of mapped files included."""
    status = Path("/proc/self/status")
    require(status.exists(), "no /proc/self/status, which tells a process's memory")
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())
    return int(line) * 1024


@pytest.mark.parametrize("fortran_order", [False, True])
def test_npy_of_any_length_takes_little_memory(tmp_path: Path, fortran_order: bool) -> None:
    shape = (2**23, 4)  # 256 MiB, a file of holes
    np.lib.format.open_memmap(
        tmp_path / "wrist.npy", "w+", np.float64, shape, fortran_order=fortran_order
    )
    describe(tmp_path, description(sensor(file="wrist.npy", columns=NUMBERED)))

    def use(recording: Recording) -> None:
        before, rows = resident_bytes(), 0
        for chunk in recording.devices[0].sensors[0].read():
            rows += len(chunk.time_s)
            assert resident_bytes() - before < 64 * 2**20
        assert rows == shape[0]

    read(tmp_path, use)


@pytest.mark.parametrize("extension", ["csv", "json", "srt", "vtt"])
def test_narrations_of_every_kind(tmp_path: Path, rows: np.ndarray, extension: str) -> None:
    cue = "00:00:01{}500 --> 00:00:02{}000\n#C C öffnet die Tür"
    content = {
        "csv": "start_s,end_s,text\n1.5,2,#C C öffnet die Tür\n",
        "json": json.dumps([{"start_s": 1.5, "end_s": 2, "text": "#C C öffnet die Tür"}]),
        "srt": "1\n" + cue.format(",", ","),
        "vtt": "WEBVTT\n\n" + cue.format(".", "."),
    }[extension]
    file = f"gesprochen 1.{extension}"
    (tmp_path / file).write_text(content)
    describe(tmp_path, description(narrations={"file": file, "offset_s": 10}))
    narrations = read(tmp_path).narrations
    assert narrations == (Narration(11.5, 12, "A person öffnet die Tür"),)


def test_labels_are_ordered_and_shifted(tmp_path: Path, rows: np.ndarray) -> None:
    table = {"start_s": [5.0, 0.0], "end_s": [6.0, 5.0], "label": ["sitting", " walking "]}
    pa.parquet.write_table(pa.table(table), tmp_path / "labels.parquet")
    describe(tmp_path, description(labels={"file": "labels.parquet", "offset_s": 1}))
    assert read(tmp_path).labels == (LabelSpan(1, 6, "walking"), LabelSpan(6, 7, "sitting"))


def test_a_pattern_describes_many_folders(tmp_path: Path) -> None:
    (tmp_path / "recording.yaml").write_text(documented("pattern"))
    for folder in ("anna/monday", "anna/tuesday", "Zoë [2]/monday", "ben/empty"):
        (tmp_path / folder).mkdir(parents=True)
        if "empty" not in folder:
            write_csv(
                tmp_path / folder / "wrist.csv", {name: np.arange(3.0) for name in ACC.values()}
            )
    reader = create_reader("folder", str(tmp_path))
    refs = reader.recordings()
    assert [ref.name for ref in refs] == ["Zoë [2]-monday", "anna-monday", "anna-tuesday"]
    assert refs[0].files == ("recording.yaml", "Zoë [2]/monday/wrist.csv")
    with reader.open(refs[0]) as recording:
        assert recording.person == "folder-Zoë [2]"
        assert len(samples(recording)[0][0]) == 3
    describe(tmp_path, description(recordings="*/tuesday"))
    assert [ref.name for ref in reader.recordings()] == ["anna-tuesday"]
    describe(tmp_path, description(recordings="*/sunday"))
    (ref,) = reader.recordings()
    message = r"recordings: no folder \*/sunday holds wrist\.csv;"
    with pytest.raises(ValueError, match=message), reader.open(ref):
        pass


def test_windows_of_other_sensors(tmp_path: Path, rows: np.ndarray) -> None:
    emg = sensor(columns={"emg_1": "ax", "emg_2": "ay", "temp": "az"}, unit="mV")
    describe(tmp_path, description(emg))
    assert create_reader("folder", str(tmp_path)).schema() == WindowSchema()
    (tmp_path / "windows.yaml").write_text(documented("windows"))
    schema = create_reader("folder", str(tmp_path)).schema()
    assert schema == WindowSchema(("emg_1", "emg_2"), ("V", "V"), 200.0, 1.0)
    assert read(tmp_path).notes == ("temp of wrist.csv: not among the windows' channels, left out",)
    describe(tmp_path, description(sensor(columns={"emg_1": "ax"}, unit="g")))
    with pytest.raises(
        ValueError, match=r"unit: g becomes m/s2, but emg_1 .* is in V; correct the"
    ):
        read(tmp_path)
    for content, message in (
        ("channels: {emg_1: mV}", "emg_1 cannot be in 'mV' in windows; write V"),
        ("channels: {emg_1: volt}", "emg_1 cannot be in 'volt' in windows; known are m/s2, rad/s"),
        ("channels: {emg_1: V}\nrate: 5", "unknown key rate; the nearest is 'rate_hz'"),
        ("channels: {emg_1: V}\nwindow_s: 0", r"window_s: .* greater than 0 \(got '0'\)"),
    ):
        (tmp_path / "windows.yaml").write_text(content)
        with pytest.raises(ValueError, match=rf"windows\.yaml: .*{message}"):
            create_reader("folder", str(tmp_path)).schema()


def test_remote_folders(tmp_path: Path, rows: np.ndarray) -> None:
    np.save(tmp_path / "wrist.npy", rows)
    numbered = {"acc_x": "0", "acc_y": "1", "acc_z": "2"}
    gyr = {channel.replace("acc", "gyr"): column for channel, column in numbered.items()}
    keys = sensor(file="wrist.npy", columns=gyr, unit="rad/s")
    describe(tmp_path, description(sensor(), keys, video={"file": "ride.mp4"}))
    write_video(tmp_path / "ride.mp4", numbered_pictures(10))
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/folder/anna/", recursive=True)

    def use(recording: Recording) -> None:
        for _, values in samples(recording):
            np.testing.assert_array_equal(values, rows)
        assert recording.frames is not None
        assert [read_number(one) for one in recording.frames.pictures([9])] == [9]

    read("memory://folder", use)


def test_what_is_written_stays_text(tmp_path: Path, rows: np.ndarray) -> None:
    describe(tmp_path, description())
    path = tmp_path / "recording.yaml"
    path.write_text(path.read_text().replace("person: anna", "person: 007\nname: no"))
    recording = read(tmp_path)
    assert (recording.person, recording.name) == ("folder-007", "no")
