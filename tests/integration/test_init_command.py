"""Drafts of recording.yaml: they build right away, and every guess is marked."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from primus_scale.cli import main
from shards.files.source import Source
from shards.readers.draft import draft
from shards.readers.draft_columns import Table, guess_columns
from shards.readers.recording_yaml import RecordingFile, load_yaml
from shards.recording import Recording
from tests.cases import case_path
from tests.encoder_factory import motion as slow_turns
from tests.folder_factory import ACC, GYR, build, errors, motion, read, text_table, write_csv
from tests.reading import read_sensor, spans


def init(source: Path, *flags: str) -> int:
    return main(["shards", "init", "folder", "--src", str(source), *flags])


def drafted(source: Path) -> tuple[RecordingFile, str]:
    """The only draft, as it is read and as it is written."""
    (one,) = draft(Source(str(source)))
    (source / one.path).write_text(one.text)
    return load_yaml(RecordingFile, Source(str(source)), one.path), one.text


def samples(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Times and all six channels in SI units, of one device."""
    pieces = [read_sensor(one) for one in recording.devices[0].sensors]
    factors = {"g": 9.80665, "deg/s": np.pi / 180, "mg": 9.80665e-3}
    scaled = [
        values * factors.get(one.unit, 1.0)
        for one, (_, values) in zip(recording.devices[0].sensors, pieces, strict=True)
    ]
    return pieces[0][0], np.concatenate(scaled, axis=1)


@pytest.mark.parametrize(
    "case", ["iso", "parquet_dt", "actigraph_head", "xsens_sep", "deccomma", "gyro_deg"]
)
def test_a_draft_of_a_case_builds_right_away(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    shutil.copytree(case_path(case), source)
    (source / "anna/recording.yaml").unlink()
    assert init(source) == 0
    assert f"wrote  {source}/recording.yaml, with 8 guesses" in capsys.readouterr().out
    for line in (source / "recording.yaml").read_text().splitlines():
        guessed = line.strip().startswith(
            ("placement", "columns", "unit", "time", "rate", "recordin")
        )
        assert ("# guess: " in line) == guessed, line
    assert build(source, tmp_path / "out") == 0
    found = errors(tmp_path / "out")
    assert len(found) >= 6 and max(found) < 0.01


def test_a_description_is_not_replaced_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    shutil.copytree(case_path("xsens_sep"), source)
    (source / "recording.yaml").write_text("mine")
    assert init(source) == 1
    error = capsys.readouterr().err
    assert "recording.yaml is there already" in error and error.count("\n") == 1
    assert (source / "recording.yaml").read_text() == "mine"
    assert init(source, "--overwrite") == 0
    assert (source / "recording.yaml").read_text() != "mine"
    assert init(tmp_path / "nowhere") == 1
    assert "check --src" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert init(tmp_path / "empty") == 1
    assert "no table" in capsys.readouterr().err


TIMES, VALUES = motion(12)
IN_G = VALUES * ([1 / 9.80665] * 3 + [180 / np.pi] * 3)


def write_text(folder: Path, head: str, rows: list[list[str]], delimiter: str) -> None:
    lines = [delimiter.join(row) for row in rows]
    (folder / "walk.txt").write_text(head + "\n".join(lines) + "\n")


def cells(values: np.ndarray, decimal: str = ".") -> list[list[str]]:
    return [[f"{one:.5f}".replace(".", decimal) for one in row] for row in values.tolist()]


def shimmer(folder: Path) -> None:
    head = (
        '"sep=\t"\nUnix\tAcc_X_CAL\tAcc_Y_CAL\tAcc_Z_CAL\tGyro_X\tGyro_Y\tGyro_Z\tMag_X\n'
        "ms\tm/(s^2)\tm/(s^2)\tm/(s^2)\tdeg/s\tdeg/s\tdeg/s\tlocal_flux\n"
    )
    turned = VALUES * ([1] * 3 + [180 / np.pi] * 3)
    rows = [[f"{1.6e12 + 1000 * t:.0f}", *row, "1"] for t, row in zip(TIMES, cells(turned))]  # noqa: B905
    write_text(folder, head, rows, "\t")


def german(folder: Path) -> None:
    rows = [
        ["27.01.2022", f"23:59:{55 + t:05.2f}" if t < 5 else f"00:00:{t - 5:05.2f}", *row]
        for t, row in zip(TIMES.tolist(), cells(IN_G, ","), strict=True)
    ]
    rows = [[row[1].replace(".", ","), *row[2:]] for row in rows]
    head = "Gerät 7\nSensor;X\n\nUhrzeit;Beschl. acc x;acc y;acc z;gyr x [°/s];gyr y;gyr z\n"
    write_text(folder, head.replace("Beschl. ", ""), rows, ";")


def numbered(folder: Path) -> None:
    rows = [[f"{20_000 * k}", *row] for k, row in enumerate(cells(np.round(VALUES * 1000) / 1000))]
    write_text(folder, "", rows, " ")


def counted(folder: Path) -> None:
    counts = np.rint(IN_G * ([4096] * 3 + [131] * 3))
    names = ["x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro"]
    rows = [[f"{t:.2f}", *row] for t, row in zip(TIMES.tolist(), cells(counts), strict=True)]
    write_text(folder, ",".join(["seconds", *names]) + "\n", rows, ",")


def dated(folder: Path) -> None:
    rows = [
        ["2022-01-27", f"12:00:{t:05.2f}", *row, "walk" if t < 6 else "sit"]
        for t, row in zip(TIMES.tolist(), cells(IN_G), strict=True)
    ]
    head = "Date|Time|Acc X (g)|Acc Y (g)|Acc Z (g)|Gyro X (deg/s)|Gyro Y (deg/s)|Gyro Z|Activity\n"
    write_text(folder, head, rows, "|")


def american(folder: Path) -> None:
    rows = [
        [
            f'"1/27/2022 11:59:{55 + t:09.6f} PM"'
            if t < 5
            else f'"1/28/2022 12:00:{t - 5:09.6f} AM"',
            *row,
        ]
        for t, row in zip(TIMES.tolist(), cells(IN_G), strict=True)
    ]
    names = [f"{kind} {axis}" for kind in ("Accelerometer", "Gyroscope") for axis in "XYZ"]
    write_text(folder, ",".join(["Timestamp", *names]) + "\n", rows, ",")


def parquet(folder: Path) -> None:
    columns = dict(zip([*ACC.values(), *GYR.values()], VALUES.T, strict=True))
    times = pa.array((TIMES * 1e6).astype(np.int64)).cast(pa.duration("us"))
    pa.parquet.write_table(pa.table({"elapsed": times, **columns}), folder / "walk.parquet")


def array(folder: Path) -> None:
    np.save(folder / "walk.npy", np.concatenate([TIMES[:, None], VALUES], axis=1))


def apart(folder: Path) -> None:
    for name, first in (("Accelerometer", 0), ("Gyroscope", 3)):
        columns = dict(zip("xyz", VALUES[:, first : first + 3].T, strict=True))
        write_csv(folder / f"{name}.csv", {"time": (TIMES + 1.7e9), **columns})


@pytest.mark.parametrize(
    "write", [shimmer, german, numbered, counted, dated, american, parquet, array, apart]
)
def test_a_draft_reads_what_was_written(write: Any, tmp_path: Path) -> None:
    folder = tmp_path / "ben"
    folder.mkdir()
    write(folder)
    described, text = drafted(tmp_path)
    assert described.recordings == "{person}"
    time_s, values = read(tmp_path, samples)
    np.testing.assert_allclose(time_s - time_s[0], TIMES, atol=2e-6)
    np.testing.assert_allclose(values, VALUES, atol=2e-3 if write in (counted, numbered) else 2e-4)
    if write is dated:
        assert spans(read(tmp_path)) == [(0, 5.98, "walk"), (6, 11.98, "sit")]
    if write is counted:
        assert "unit: {lsb_per_g: 4096}  # guess: median |a| is 4" in text


def test_people_and_placements_by_folder(tmp_path: Path) -> None:
    table = text_table([f"{t:.2f}" for t in TIMES], VALUES)
    for folder in ("ann/left_wrist", "ann/right_wrist", "bo/left_wrist"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "w.csv").write_text(table)
    described, _ = drafted(tmp_path)
    assert described.recordings == "{person}/{placement}"
    assert described.devices[0].placement == "{placement}"
    (tmp_path / "bo/left_wrist").rename(tmp_path / "bo/monday")
    (tmp_path / "recording.yaml").unlink()
    described, _ = drafted(tmp_path)
    assert described.recordings == "{person}/*"


def test_one_folder_with_devices_that_names_place(tmp_path: Path) -> None:
    table = text_table([f"{t:.2f}" for t in TIMES], VALUES)
    for name in ("LeftWrist.csv", "waist_2.csv"):
        (tmp_path / name).write_text(table)
    (tmp_path / "ride.mp4").write_bytes(b"")
    described, text = drafted(tmp_path)
    assert [one.placement for one in described.devices] == ["left wrist", "waist"]
    assert described.person == tmp_path.name and "# video: {file: ride.mp4" in text
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(table)
    with pytest.raises(ValueError, match=r"each hold a sensor, and no name says where .* PERSON/"):
        draft(Source(str(tmp_path)))


def test_folders_that_differ_have_a_draft_each(tmp_path: Path) -> None:
    table = text_table([f"{t:.2f}" for t in TIMES], VALUES)
    for path in ("ann/w.csv", "bo/v.csv"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(table)
    assert init(tmp_path) == 0
    for name, file in (("ann", "w.csv"), ("bo", "v.csv")):
        described = load_yaml(RecordingFile, Source(str(tmp_path)), f"{name}/recording.yaml")
        assert described.person == name and described.devices[0].sensors[0].file == file


def test_files_without_an_accelerometer_are_told(tmp_path: Path) -> None:
    (tmp_path / "heart.csv").write_text("time,bpm\n0,60\n1,61\n")
    with pytest.raises(
        ValueError, match=r"no columns of an accelerometer in heart\.csv: bpm; write"
    ):
        draft(Source(str(tmp_path)))


@pytest.mark.parametrize(("unit", "factor"), [("rad/s", 1.0), ("deg/s", 180 / np.pi)])
def test_gravity_tells_the_unit_of_slow_turning(unit: str, factor: float) -> None:
    """Its numbers alone would do for either unit."""
    signal = slow_turns(50.0, 120.0, turns=0.13, shake=0.02)
    names = [*ACC.values(), *GYR.values()]
    columns = {name: signal[:, n] * (factor if n >= 3 else 1) for n, name in enumerate(names)}
    time = {"t": np.arange(len(signal)) / 50.0}
    (_, gyr) = guess_columns(Table("a.csv", time | columns)).sensors
    assert gyr.unit == unit
    assert gyr.why.startswith(f"gravity turns as fast as these numbers say in {unit}; median")


def test_a_draft_looks_past_the_rest_at_the_start(tmp_path: Path) -> None:
    """Minutes in which nothing moves tell no unit."""
    still = np.tile([0.0, 0.0, 1.0, 0.1, 0.0, 0.0], (20_000, 1))
    values = np.concatenate([still, np.tile(IN_G, (4, 1))])
    times = np.arange(len(values)) / 50.0
    table = text_table([f"{one:.2f}" for one in times], values)
    (tmp_path / "anna.csv").write_text(table)
    file, _ = drafted(tmp_path)
    assert file.devices[0].sensors[1].unit.unit == "deg/s"


def test_odd_names_stay_on_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a, b: #1.csv").write_text(
        text_table([f"{t:.2f}" for t in TIMES], VALUES)
        .replace("gx", '"g: {x}, #"', 1)
        .replace("t,", '"t\n- x: y",', 1)
    )
    (one,) = draft(Source(str(tmp_path)))
    text = one.text
    yaml.safe_load(text)
    assert 'file: "a, b: #1.csv"' in text


def test_a_rate_that_nothing_states_is_left_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    names = ("ax", "ay", "az", "gx", "gy", "gz")
    write_csv(source / "a.csv", dict(zip(names, VALUES.T, strict=True)))
    assert init(source) == 0
    open_line = f"open   {source}/recording.yaml: rate_hz of 2 sensors; nothing states it, so write"
    assert open_line in capsys.readouterr().out
    assert build(source, tmp_path / "out") == 1
    said = capsys.readouterr().err
    for number in (0, 1):
        assert f"devices.0.sensors.{number}.rate_hz has no value; write it" in said
    assert "at least 1 item" not in said
    text = (source / "recording.yaml").read_text()
    (source / "recording.yaml").write_text(text.replace("rate_hz:", "rate_hz: 100"))
    assert build(source, tmp_path / "out") == 0


@pytest.mark.parametrize("fault", ["gaps", "clock set back", "a pause of an hour"])
def test_a_rate_is_that_of_the_rows_without_their_gaps(fault: str) -> None:
    time_s = np.arange(1000) / 80.0
    if fault == "gaps":
        time_s = time_s[np.arange(1000) % 100 < 60]
    else:
        time_s[500:] += 3600.0 if fault == "a pause of an hour" else -3.0
    values = np.random.default_rng(0).normal(size=(len(time_s), 3))
    for scale, digits, unit in ((1.0, 6, "s"), (1e3, 0, "ms")):
        columns = dict(zip(("ax", "ay", "az"), values.T, strict=True))
        found = guess_columns(Table("a.csv", {"time": np.round(time_s * scale, digits), **columns}))
        assert found.time is not None and found.time.rate_hz is not None
        assert found.time.unit == unit
        assert found.time.rate_hz == pytest.approx(80.0, rel=2e-3)


def test_files_of_another_kind_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path) == 1
    assert f"below {tmp_path}: it holds no file; point" in capsys.readouterr().err
    (tmp_path / "a.xlsx").touch()
    assert init(tmp_path) == 1
    assert f"below {tmp_path}: it holds a.xlsx; point" in capsys.readouterr().err
