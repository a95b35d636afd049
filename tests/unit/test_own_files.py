"""Own files as they are: layouts, counts and placements, built to windows."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from shards.readers import create_reader
from shards.recording import Recording
from tests.cases import case_path
from tests.folder_factory import (
    ACC,
    GYR,
    build,
    describe,
    description,
    errors,
    first_sensor,
    motion,
    read,
    sensor,
    write_csv,
)
from tests.reading import read_sensor, spans

COLUMNS = (*ACC.values(), *GYR.values())


@pytest.mark.parametrize("case", ["iso", "parquet_dt", "xsens_sep"])
def test_cases_that_are_read_as_they_are(case: str, tmp_path: Path) -> None:
    assert build(case_path(case), tmp_path) == 0
    found = errors(tmp_path)
    assert len(found) == 6 and max(found) < 0.01


@pytest.mark.parametrize(
    ("case", "advice"),
    [("actigraph_head", "skip_lines: 10"), ("deccomma", 'decimal: ","')],
)
def test_cases_that_are_read_as_the_error_advises(
    case: str, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(case_path(case), tmp_path / "src")
    assert build(tmp_path / "src", tmp_path / "out") == 1
    assert f"write {advice}; or let `primus-scale shards init" in capsys.readouterr().err
    path = tmp_path / "src/anna/recording.yaml"
    keys = yaml.safe_load(path.read_text())
    for one in keys["devices"][0]["sensors"]:
        one.update(yaml.safe_load(advice))
    path.write_text(yaml.safe_dump(keys))
    assert build(tmp_path / "src", tmp_path / "out") == 0
    found = errors(tmp_path / "out")
    assert len(found) == 6 and max(found) < 0.01


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet"])
def test_counts_of_a_converter_become_units(suffix: str, tmp_path: Path) -> None:
    counts = np.array([[2048 + 4096, 2048 - 8192, 2048], [2048, 2048 + 2048, 0]])
    columns = dict(zip(ACC.values(), counts.T, strict=True))
    names = ACC
    if suffix == "csv":
        write_csv(tmp_path / "w.csv", columns)
    elif suffix == "npy":
        np.save(tmp_path / "w.npy", counts)
        names = {"acc_x": "0", "acc_y": "1", "acc_z": "2"}
    else:
        pa.parquet.write_table(pa.table(columns), tmp_path / "w.parquet")

    def use(recording: Recording) -> tuple[str, float | None, np.ndarray]:
        (one,) = recording.devices[0].sensors
        return one.unit, one.limit, read_sensor(one)[1]

    for unit, name, factor in (
        ({"lsb_per_g": 4096, "zero": 2048}, "g", 1 / 4096),
        ({"mg_per_lsb": 0.061, "zero": 2048}, "mg", 0.061),
        ({"m_s2_per_lsb": 0.01, "zero": 2048}, "m/s2", 0.01),
    ):
        keys = sensor(file=f"w.{suffix}", columns=names, unit=unit, limit=32767)
        describe(tmp_path, description(keys))
        found, limit, values = read(tmp_path, use)
        assert found == name and limit == pytest.approx(32767 * factor)
        np.testing.assert_allclose(values, (counts - 2048) * factor)
    for unit, name, one in (
        ({"lsb_per_deg_s": 131}, "deg/s", 1 / 131),
        ({"mdeg_s_per_lsb": 70}, "deg/s", 0.07),
        ({"lsb_per_rad_s": 1000}, "rad/s", 1e-3),
    ):
        gyr = dict(zip(GYR, names.values(), strict=True))
        describe(tmp_path, description(sensor(file=f"w.{suffix}", columns=gyr, unit=unit)))
        found, _, values = read(tmp_path, use)
        assert found == name
        np.testing.assert_allclose(values, counts * one)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ({"lsb_per_gee": 4096}, "unknown key 'lsb_per_gee'; the nearest is 'lsb_per_g'"),
        ({"lsb_per_g": "many"}, r"lsb_per_g must be a number \(got 'many'\)"),
        ({"lsb_per_g": 0}, "lsb_per_g must be positive"),
        ({"lsb_per_g": 1, "g_per_lsb": 1}, "write one scale of counts"),
        ({}, "write one scale of counts"),
        (["g"], "unknown unit"),
    ],
)
def test_scales_that_are_none_are_told(unit: Any, message: str, tmp_path: Path) -> None:
    describe(tmp_path, description(sensor(unit=unit)))
    with pytest.raises(ValueError, match=rf"sensors\.0\.unit: {message}"):
        read(tmp_path)


def test_files_without_a_header_and_of_other_names(tmp_path: Path) -> None:
    time_s, values = motion(12)
    rows = [
        " ".join(map(repr, [t, *row]))
        for t, row in zip(time_s.tolist(), values.tolist(), strict=True)
    ]
    (tmp_path / "w.txt").write_text("made by X\n" + "\n".join(rows))
    numbered = [
        sensor(
            file="w.txt",
            columns={channel: str(first + axis) for axis, channel in enumerate(channels)},
            unit=unit,
            rate_hz=None,
            time={"column": "0", "unit": "s"},
            header=False,
            skip_lines=1,
            delimiter="space",
        )
        for channels, unit, first in ((ACC, "m/s2", 1), (GYR, "rad/s", 4))
    ]
    describe(tmp_path / "", description(*numbered))

    def use(recording: Recording) -> np.ndarray:
        pieces = [read_sensor(one) for one in recording.devices[0].sensors]
        np.testing.assert_allclose(pieces[0][0], time_s)
        return np.concatenate([sensed for _, sensed in pieces], axis=1)

    np.testing.assert_allclose(read(tmp_path, use), values)
    numbered[0]["columns"]["acc_x"] = "ax"
    describe(tmp_path, description(*numbered))
    with pytest.raises(ValueError, match="columns of a file without a header are numbers"):
        read(tmp_path)


def test_placements_by_folder(tmp_path: Path) -> None:
    for folder in ("anna/left_wrist", "anna/right_wrist", "ben/Left-Wrist"):
        (tmp_path / folder).mkdir(parents=True)
        write_csv(tmp_path / folder / "wrist.csv", dict.fromkeys(COLUMNS, np.arange(3.0)))

    def worn(placement: Any, recordings: str) -> dict[str, tuple[str, str]]:
        keys = description(person=None, recordings=recordings)
        keys["devices"][0]["placement"] = placement
        describe(tmp_path, keys)
        reader = create_reader("folder", str(tmp_path))
        found = {}
        for ref in reader.recordings():
            with reader.open(ref) as recording:
                found[ref.name] = (recording.person, recording.devices[0].placement)
        return found

    expected = {
        "anna-left_wrist": ("folder-anna", "left wrist"),
        "anna-right_wrist": ("folder-anna", "right wrist"),
        "ben-Left-Wrist": ("folder-ben", "left wrist"),
    }
    assert worn("{placement}", "{person}/{placement}") == expected
    mapping = {"[lL]eft*": "left wrist", "right*": "right wrist"}
    assert worn(mapping, "{person}/*") == expected
    with pytest.raises(ValueError, match=r"no placement in 'ben/Left-Wrist': none of 'left"):
        worn({"left*": "left wrist", "right*": "right wrist"}, "{person}/*")
    with pytest.raises(ValueError, match=r"write \{placement\} in recordings too"):
        worn("{placement}", "{person}/*")


def test_the_documented_text_is_read(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs/folder.md").read_text()
    (block,) = re.findall(r"<!-- text -->\n```yaml\n(.*?)```", docs, re.DOTALL)
    (labels,) = re.findall(r"<!-- labels -->\n```yaml\n(.*?)```", docs, re.DOTALL)
    (tmp_path / "recording.yaml").write_text(block + labels)
    head = "\n".join(f"line {number}; 1, 2" for number in range(9))
    rows = [
        "Date;Clock;X;Y;Z",
        "2022-01-27;12:00:00,0;4096;0;0",
        "2022-01-27;12:00:00,5;0;-8192,0;2",
    ]
    (tmp_path / "log.txt").write_text(f"{head}\n" + "\n".join(rows))
    (tmp_path / "wrist.csv").write_text("t,activity\n0,walk\n500,walk\n700,\n")

    def use(recording: Recording) -> None:
        time_s, values = first_sensor(recording)
        np.testing.assert_allclose(time_s, [0, 0.5])
        np.testing.assert_allclose(values, [[1, 0, 0], [0, -2, 2 / 4096]])
        assert spans(recording) == [(0, 0.5, "walk")]
        assert "0 s is 2022-01-27 11:00:00 UTC" in recording.sync

    read(tmp_path, use)
