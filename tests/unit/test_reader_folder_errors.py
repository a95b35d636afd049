"""What a user is told of a wrong ``recording.yaml``, and of wrong files that it names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.readers import create_reader
from shards.recording import Recording
from tests.folder_factory import ACC, NUMBERED, describe, description, read, sensor, write_csv


@pytest.fixture(autouse=True)
def _rows(tmp_path: Path) -> None:
    write_csv(tmp_path / "wrist.csv", {name: np.arange(3.0) for name in ACC.values()})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (description(persn="anna"), "unknown key persn; the nearest is 'person'"),
        (
            description(sensor(colums=ACC)),
            r"unknown key devices\.0\.sensors\.0\.colums; .* 'columns'",
        ),
        (
            description(sensor(unit="m/s^2")),
            r"sensors\.0\.unit: unknown unit 'm/s\^2'; the .* 'm/s2'",
        ),
        (description(sensor(file=None)), r"devices\.0\.sensors\.0\.file is missing; write it"),
        (description(devices=None), "devices is missing; write it"),
        (description(sensor(file="wrist.mat")), r"'wrist\.mat' is none of \.csv, \.parquet, \.npy"),
        (description(sensor(file="../wrist.csv")), "must lie in the folder or below"),
        (description(sensor(rate_hz=None)), "give either time .* or rate_hz"),
        (description(sensor(rate_hz="fast")), r"rate_hz: .* valid number.* \(got 'fast'\)"),
        (description(sensor(time={"column": "ax", "unit": "s"})), "give either time .* or rate_hz"),
        (
            description(sensor(rate_hz=None, time={"column": "ax", "unit": "minutes"})),
            r"time\.unit: .* 's', 'ms', 'us' or 'ns' \(got 'minutes'\)",
        ),
        (description(sensor(file="wrist.npy")), "columns of an npy file are numbers, .* got 'ax'"),
        (
            description(sensor(), sensor()),
            "two of its sensors have the channel acc_x; name each once",
        ),
        (description(person=None), "give either person or"),
        (description(recordings="{person}/{person}"), r"may hold names, \* and one \{person\}"),
        (description(recordings="*", name="one"), "name is of one recording"),
        (description(video={"file": "a.mp4", "quarter_turns": 4}), "less than or equal to 3"),
        (["a list"], "holds no keys with values; docs/folder.md shows an example"),
    ],
)
def test_wrong_descriptions_are_told(tmp_path: Path, keys: Any, message: str) -> None:
    describe(tmp_path / "ännä", keys)
    with pytest.raises(ValueError, match=rf"ännä/recording\.yaml:? .*{message}"):
        read(tmp_path)


def test_damaged_descriptions_are_told(tmp_path: Path) -> None:
    path = tmp_path / "recording.yaml"
    for content, message in (
        ("", "holds no keys with values"),
        ("person: [anna", "is not valid YAML"),
        ("person: anna\nperson: ben\n", "the key person is there twice"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"(?s)recording\.yaml .*{message}"):
            read(tmp_path)


def truncate_npy(folder: Path) -> None:
    np.save(folder / "wrist.npy", np.zeros((1000, 3)))
    data = (folder / "wrist.npy").read_bytes()
    (folder / "wrist.npy").write_bytes(data[:-5000])


@pytest.mark.parametrize(
    ("file", "write", "message"),
    [
        (
            "wrist.csv",
            lambda f: (f / "wirst.csv").touch(),
            r"no .*wrist\.csv; the nearest is 'wirst\.c",
        ),
        ("wrist.csv", lambda f: (f / "wrist.csv").touch(), "no row, it is empty"),
        (
            "wrist.csv",
            lambda f: (f / "wrist.csv").write_text("ax,ay,az\n1,2,3\n1,high,3\n"),
            "line 3, column ay holds 'high', which is no number",
        ),
        (
            "wrist.csv",
            lambda f: (f / "wrist.csv").write_text("ax,ay\n1,2\n"),
            r"has no column 'az'; the nearest is 'a[xy]'\. Its columns are: ax, ay",
        ),
        (
            "wrist.csv",
            lambda f: (f / "wrist.csv").write_text("ax,ay,az\n1,2\n"),
            "line 2 has 2 cells",
        ),
        (
            "wrist.parquet",
            lambda f: (f / "wrist.parquet").write_bytes(b"PAR1"),
            "is no Parquet file",
        ),
        ("wrist.npy", lambda f: (f / "wrist.npy").touch(), "is not a complete npy file of numbers"),
        ("wrist.npy", truncate_npy, "is not a complete npy file of numbers"),
        (
            "wrist.npy",
            lambda f: np.save(f / "wrist.npy", np.array([{}, None]), allow_pickle=True),
            "is not a complete npy file of numbers|holds object",
        ),
        (
            "wrist.npy",
            lambda f: np.save(f / "wrist.npy", np.zeros(9)),
            r"holds float64 of shape \(9,\)",
        ),
        ("wrist.npy", lambda f: np.save(f / "wrist.npy", np.zeros((0, 3))), "has no row"),
        (
            "wrist.npy",
            lambda f: np.save(f / "wrist.npy", np.zeros((9, 2))),
            "has no column 2: its columns are 0 to 1; correct the number",
        ),
    ],
)
def test_wrong_sensor_files_are_told(
    tmp_path: Path, file: str, write: Callable[[Path], object], message: str
) -> None:
    columns = NUMBERED if file.endswith(".npy") else ACC
    describe(tmp_path / "ännä", description(sensor(file=file, columns=columns)))
    write(tmp_path / "ännä")
    where = r"ännä/recording\.yaml: devices\.0\.sensors\.0"
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{where}.*({message})"):
        read(tmp_path)


def test_wrong_narrations_labels_and_videos_are_told(tmp_path: Path) -> None:
    for key, file, content, message in (
        ("narrations", "said.srt", None, r"recording\.yaml: narrations\.file: no .*said\.srt"),
        (
            "narrations",
            "said.srt",
            "",
            r"recording\.yaml: narrations: .*said\.srt holds no narration",
        ),
        ("narrations", "said.csv", "start,words\n1,one\n", r"said\.csv, line 1: no text"),
        ("narrations", "said.docx", "", r"said\.docx: narrations are read from \.csv, \.json"),
        ("labels", "done.csv", None, r"recording\.yaml: labels\.file: no .*done\.csv"),
        (
            "labels",
            "done.csv",
            "start_s,end_s,labels\n",
            r"done\.csv has no column 'label'; the ne",
        ),
        ("labels", "done.csv", "start_s,end_s,label\n1,x,sit\n", "line 2, column end_s holds 'x'"),
        (
            "labels",
            "done.csv",
            "start_s,end_s,label\n1,1,sit\n",
            r"done\.csv: row 1 below the header: 'sit' from 1 s to 1 s is no span",
        ),
        ("labels", "done.csv", "start_s,end_s,label\n,1,sit\n", "row 1 .* is no span"),
        ("labels", "done.csv", "start_s,end_s,label\n0,1,\n", "row 1 .* is no span"),
        (
            "labels",
            "done.csv",
            "start_s,end_s,label\n5,9,sit\n1,6,stand\n",
            "rows 2 and 1 below the header overlap; let 'stand' end before 'sit' starts",
        ),
        ("video", "ride.mp4", None, r"recording\.yaml: video\.file: no .*ride\.mp4"),
        ("video", "ride.mp4", "", r"ride\.mp4 is empty"),
    ):
        describe(tmp_path, description(**{key: {"file": file}}))
        (tmp_path / file).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / file).write_text(content)

        def use(recording: Recording) -> None:
            if recording.frames is not None:
                recording.frames.times_s()

        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read(tmp_path, use)


def test_sources_without_or_with_double_recordings(tmp_path: Path) -> None:
    reader = create_reader("folder", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no recording\.yaml below .*docs/folder\.md"):
        reader.recordings()
    describe(tmp_path / "a", description(name="one"))
    describe(tmp_path / "b", description(name="one"))
    describe(tmp_path / "c", description(name="three"))
    refs = reader.recordings()
    assert [ref.name for ref in refs] == [
        "one (1: a/recording.yaml)",
        "one (2: b/recording.yaml)",
        "three",
    ]
    for ref in refs[:2]:
        message = "both describe a recording called one; give one another"
        with pytest.raises(ValueError, match=message), reader.open(ref):
            pass
    # A wrong description does not keep the others from being read.
    describe(tmp_path / "b", description(nme="two"))
    assert [ref.name for ref in reader.recordings()] == ["b", "one", "three"]
    with pytest.raises(ValueError, match="is a file; point --src at the folder that holds it"):
        create_reader("folder", str(tmp_path / "a" / "recording.yaml"))
