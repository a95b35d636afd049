"""Many recordings as files of one folder: who, where and what by their names."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from primus_scale.cli import main
from shards.files.source import Source
from shards.readers import create_reader
from shards.readers.draft import draft
from shards.readers.draft_names import guess_layout
from shards.readers.name_patterns import NamePattern, check_pattern
from shards.recording import Recording
from tests.folder_factory import (
    ACC,
    GYR,
    build,
    describe,
    description,
    errors,
    motion,
    sensor,
    text_table,
)
from tests.reading import read_sensor, spans, windows_of

TIMES, VALUES = motion(12)
TABLE = text_table([f"{t:.2f}" for t in TIMES], VALUES)
CLOCK = {"column": "t", "unit": "s"}


def of_files(*files: str, **changed: Any) -> dict[str, Any]:
    """A description of both sensors, each in the file of its place, or both in one."""
    sensors = [
        sensor(file=file, columns=columns, unit=unit, rate_hz=None, time=CLOCK)
        for file, columns, unit in zip(
            files * (3 - len(files)), (ACC, GYR), ("m/s2", "rad/s"), strict=True
        )
    ]
    return description(*sensors, **{"person": None, "recordings": "{person}"} | changed)


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(TABLE)


def opened(source: Path) -> dict[str, tuple[str, str, list[Any]]]:
    """Person, placement and labels of each recording, by name."""
    reader = create_reader("folder", str(source))
    found = {}
    for ref in reader.recordings():
        with reader.open(ref) as recording:
            found[ref.name] = (recording.person, recording.devices[0].placement, spans(recording))
    return found


def test_files_of_one_folder_are_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    write(source, "p01.csv", "p02.csv", "anna b.csv", "p03.txt", "old/p04.csv")
    describe(source, of_files("{recording}.csv"))
    assert build(source, tmp_path / "out") == 0
    assert max(errors(tmp_path / "out")) < 0.01
    windows = windows_of(tmp_path / "out")
    assert {(one.meta.recording, one.meta.person) for one in windows} == {
        (name, f"folder-{name}") for name in ("p01", "p02", "anna b")
    }
    told = [line.strip() for line in capsys.readouterr().out.splitlines() if "not read" in line]
    assert told == [
        "not read .: p03.txt, which no recording.yaml names",
        "not read old: p04.csv, which no recording.yaml names",
    ]


def test_names_say_person_placement_and_label(tmp_path: Path) -> None:
    write(tmp_path, "p01_left-wrist_walk.csv", "p02_Waist_stand_up.csv")
    keys = of_files("{recording}.csv", recordings="{person}_{placement}_{label}", label="{label}")
    keys["devices"][0]["placement"] = "{placement}"
    describe(tmp_path, keys)
    always = 1e10
    assert opened(tmp_path) == {
        "p01_left-wrist_walk": ("folder-p01", "left wrist", [(-always, always, "walk")]),
        "p02_Waist_stand_up": ("folder-p02", "waist", [(-always, always, "stand up")]),
    }
    keys["devices"][0]["placement"] = {"*left*": "left wrist", "Waist": "waist"}
    keys["label"] = {"*_walk": "walking", "stand*": "standing", "stand_up": "rising"}
    describe(tmp_path, keys)
    assert [one[1:] for one in opened(tmp_path).values()] == [
        ("left wrist", [(-always, always, "walking")]),
        ("waist", [(-always, always, "rising")]),
    ]
    keys["label"] = {"walk": "walking"}
    describe(tmp_path, keys)
    with pytest.raises(ValueError, match=r"label: 'p02_Waist_stand_up' has none: none of 'walk'"):
        opened(tmp_path)


def sessions(source: Path) -> dict[str, str]:
    reader, found = create_reader("folder", str(source)), {}
    for ref in reader.recordings():
        with reader.open(ref) as recording:
            found[ref.name] = recording.session
    return found


def test_a_session_is_told_by_name_or_for_all_of_a_person(tmp_path: Path) -> None:
    write(tmp_path, "p01_mo_1.csv", "p01_mo_2.csv", "p01_tu_1.csv", "p02_mo_1.csv")
    describe(tmp_path, of_files("{recording}.csv", recordings="{person}_*_*"))
    assert set(sessions(tmp_path).values()) == {""}
    describe(tmp_path, of_files("{recording}.csv", recordings="{person}_{session}_*"))
    assert sessions(tmp_path) == {
        "p01_mo_1": "p01-mo",
        "p01_mo_2": "p01-mo",
        "p01_tu_1": "p01-tu",
        "p02_mo_1": "p02-mo",
    }
    keys = of_files("{recording}.csv", recordings="{person}_*_*", session="spring")
    describe(tmp_path, keys)
    assert {*sessions(tmp_path).values()} == {"p01-spring", "p02-spring"}
    describe(tmp_path, keys | {"recordings": "{person}_{session}_*"})
    with pytest.raises(ValueError, match=r"give either session or recordings with \{session\}"):
        sessions(tmp_path)


def test_a_label_of_the_whole_recording_reaches_every_window(tmp_path: Path) -> None:
    source = tmp_path / "src"
    write(source, "walk/p01.csv", "sit/p01.csv")
    keys = of_files("{recording}.csv", recordings="{label}/{person}", label="{label}")
    describe(source, keys)
    assert build(source, tmp_path / "out") == 0
    found = {(one.meta.recording, one.meta.label) for one in windows_of(tmp_path / "out")}
    assert found == {("walk-p01", "walk"), ("sit-p01", "sit")}
    assert len(errors(tmp_path / "out")) == 4 and max(errors(tmp_path / "out")) < 0.01


@pytest.mark.parametrize(
    ("acc", "gyr"),
    [
        ("{recording}_acc.csv", "{recording}_gyro.csv"),
        ("acc/{recording}.csv", "gyro/{recording}.csv"),
        ("{recording}/{recording}.csv", "{recording}/g.csv"),
    ],
)
def test_sensors_of_a_recording_in_files_of_their_own(acc: str, gyr: str, tmp_path: Path) -> None:
    source = tmp_path / "src"
    for name in ("p01_1", "p01_2", "p02_1"):
        write(source, acc.replace("{recording}", name), gyr.replace("{recording}", name))
    write(source, acc.replace("{recording}", "p03_1"))
    (source / "p01_1_labels.csv").write_text("start_s,end_s,label\n0,12,walk\n")
    keys = of_files(acc, gyr, recordings="{person}_*")
    describe(source, keys)
    reader = create_reader("folder", str(source))
    refs = {ref.name: ref for ref in reader.recordings()}
    assert list(refs) == ["p01_1", "p01_2", "p02_1", "p03_1"]
    with pytest.raises(FileNotFoundError, match=r"sensors\.1\.file: no .*p03_1"):
        reader.open(refs["p03_1"]).__enter__()
    assert build(source, tmp_path / "out") == 0
    assert len(errors(tmp_path / "out")) == 6 and max(errors(tmp_path / "out")) < 0.01
    assert {one.meta.person for one in windows_of(tmp_path / "out")} == {"folder-p01", "folder-p02"}


def test_a_file_is_of_the_recording_that_explains_most_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, "p01.csv", "p02.csv")
    for name in ("p01", "p02"):
        (tmp_path / f"{name}_labels.csv").write_text(f"start_s,end_s,label\n0,12,{name}\n")
    describe(tmp_path, of_files("{recording}.csv", labels={"file": "{recording}_labels.csv"}))
    assert opened(tmp_path) == {
        name: (f"folder-{name}", "wrist", [(0, 12, name)]) for name in ("p01", "p02")
    }


def test_two_files_of_one_name_fail_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    write(source, "a/b.csv", "a-x/b.csv", "a/x-b.csv")
    describe(source, of_files("{recording}.csv", recordings="*/{person}"))
    assert build(source, tmp_path / "out") == 0
    failed = [line.strip() for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert failed == [
        f"FAILED   a-x-b ({number}: {path}): {source}/a-x/b.csv and {source}/a/x-b.csv are both of "
        "a recording called a-x-b; give one another name"
        for number, path in ((1, "a-x/b.csv"), (2, "a/x-b.csv"))
    ]
    assert {one.meta.recording for one in windows_of(tmp_path / "out")} == {"a-b"}


@pytest.mark.parametrize(
    ("changed", "file", "message"),
    [
        ({"recordings": "{person}*"}, "{recording}.csv", r"where \{person\} ends and \* begins"),
        (
            {"recordings": "{person}{placement}"},
            "{recording}.csv",
            r"where \{person\} ends and \{placement\} begins; write what stands between them",
        ),
        ({"recordings": "{person}_{Label}"}, "{recording}.csv", "may hold names"),
        (
            {"recordings": "{person}.csv"},
            "{recording}",
            r"write its ending too, .* \{recording\}\.",
        ),
        ({"recordings": "{person}.csv"}, "{recording}.csv", "no file is called .* correct the pat"),
        ({"recordings": "{person}_*"}, "{recording}.csv", r"\{recording\} is \{person\}_\*; corr"),
        ({}, "{person}.csv", r"write \{recording\} for the part .* \{person\} in recordings"),
        ({"label": "{label}"}, "{recording}.csv", r"write \{label\} in recordings too"),
        (
            {"recordings": "{person}_{label}"},
            "{recording}.csv",
            "write what it says, such as label",
        ),
        (
            {"labels": {"file": "labels.csv"}},
            "{recording}.csv",
            r"labels\.file: 'labels\.csv' would be of all recordings; write \{recording\} in it",
        ),
        (
            {"label": "x", "labels": {"file": "{recording}_l.csv"}},
            "{recording}.csv",
            "give either label",
        ),
        ({"label": []}, "{recording}.csv", "write the activity of the whole recording"),
        ({"person": "anna", "recordings": None}, "{recording}.csv", "write recordings too"),
    ],
)
def test_wrong_patterns_are_told(
    changed: dict[str, Any], file: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path, "p01.csv")
    describe(tmp_path, of_files(file, **changed))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_wildcards_take_as_little_as_fits() -> None:
    def said(pattern: str, path: str) -> Any:
        named = NamePattern("", check_pattern(pattern)).of_folder(path)
        return named and named.fields

    assert said("{person}_*", "p01_a_b") == {"person": "p01"}
    assert said("{person}_{placement}", "p01_left_wrist") == {
        "person": "p01",
        "placement": "left_wrist",
    }
    assert said("*_{person}_x", "a_b_c_x") == {"person": "b_c"}
    assert said("x-{person}/*.d", "x-1/.d") == {"person": "1"}
    for path in ("_b", "p01", "a/p01_b", "p01_b/c"):
        assert said("{person}_*", path) is None, path
    slow = "a".join(["*"] * 8) + "/{person}b"
    assert said(slow, "a" * 200 + "/" + "b" * 50) == {"person": "b" * 49}
    assert said(slow, "a" * 200 + "/" + "a" * 50) is None  # a naive search takes hours


LAYOUTS = {
    "p01 p02 p03": ("{person}", None),
    "anna ben": ("{person}", None),
    "01 02 17": ("{person}", None),
    "BG001 BG002": ("{person}", None),
    "subject_1 subject_2": ("subject_{person}", None),
    "sub-01_ses-1 sub-01_ses-2 sub-02_ses-1": ("sub-{person}_ses-*", None),
    "p01_walk p01_run p02_walk": ("{person}_{label}", None),
    "p01_walk_1 p01_run_1 p02_sit_2": ("{person}_{label}_*", None),
    "p01_walk p01_run_fast": ("{person}_*", None),
    "anna_1 anna_2 ben_1": ("{person}_*", None),
    "walking running sitting": ("{label}", "src"),
    "recording_1 recording_2": ("recording_*", "src"),
    "2022-01-27 2022-02-03": ("2022-*-*", "src"),
    "20220127 20220203": ("*", "src"),
    "p01_left_wrist p01_right_wrist p02_left_wrist": ("{person}_*", None),
    "anna/1 anna/2 ben/1": ("{person}/*", None),
    "anna/walk anna/run ben/run ben/sit": ("{person}/{label}", None),
    "monday/p01 monday/p02 tuesday/p01": ("*/{person}", None),
    "day1/anna day1/ben day2/anna": ("*/{person}", None),
    "left_wrist/p01 left_wrist/p02 waist/p01": ("*/{person}", None),
    "a/x/1 a/y/2 b/x/1 b/x/2": ("{person}/*/*", None),
    "day1/1_acc day1/2_acc day2/1_acc": ("*/{person}", None),
    "day1/rec_1 day2/rec_1 day2/rec_2": ("*/rec_*", "src"),
    "raw/p01 raw/p02": ("raw/{person}", None),
}


@pytest.mark.parametrize("names", LAYOUTS)
def test_layouts_that_names_tell_of(names: str) -> None:
    paths = [f"{name}.csv" for name in names.split()]
    layout = guess_layout(paths, "src")
    assert layout is not None
    assert (layout.recordings.replace("*-*", "*"), layout.person) == (
        LAYOUTS[names][0].replace("*-*", "*"),
        LAYOUTS[names][1],
    )
    assert sorted(path for files in layout.files.values() for path in files) == sorted(paths)


@pytest.mark.parametrize(
    "names",
    ["LeftWrist waist_2", "Accelerometer Gyroscope", "a/acc a/gyro b/acc b/gyro", "ben/walk"],
)
def test_files_that_are_one_recording(names: str) -> None:
    assert guess_layout([f"{name}.csv" for name in names.split()], "src") is None


@pytest.mark.parametrize(
    ("paths", "people", "placements"),
    [
        ("p01 p02 p03", "p01 p02 p03", "unknown"),
        ("p01_acc p01_gyro p02_acc p02_gyro", "p01 p02", "unknown"),
        ("acc/p01 gyro/p01 acc/p02 gyro/p02", "p01 p02", "unknown"),
        ("anna/1 anna/2 ben/1", "anna ben", "unknown"),
        (
            "p01_left_wrist p01_RightWrist_2 p02_wrist",
            "p01 p02",
            "left wrist|right wrist|wrist",
        ),
        ("rec-1 rec-2", "src", "unknown"),
        ("p01_walk p01_sit p02_walk", "p01 p02", "unknown"),
    ],
)
def test_a_draft_of_many_files_builds_at_once(
    paths: str, people: str, placements: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src"
    for path in paths.split():
        write(source, f"{path}.csv")
        if "acc" in path or "gyro" in path:  # a table of one sensor
            columns = (0, 1, 2, 3) if "acc" in path else (0, 4, 5, 6)
            rows = [line.split(",") for line in TABLE.splitlines()]
            cut = "\n".join(",".join(row[column] for column in columns) for row in rows)
            (source / f"{path}.csv").write_text(cut + "\n")
    command = ["shards", "init", "folder", "--src", str(source)]
    assert main(command) == 0
    assert build(source, tmp_path / "out") == 0
    assert "FAILED" not in capsys.readouterr().out
    found = errors(tmp_path / "out")
    recordings = {re.sub("_?(acc|gyro)/?", "", path) for path in paths.split()}
    assert len(found) == 2 * len(recordings) and max(found) < 0.01
    metas = [one.meta for one in windows_of(tmp_path / "out")]
    assert {one.person for one in metas} == {f"folder-{name}" for name in people.split()}
    assert {one.placement for one in metas} == set(placements.split("|"))
    labels = {one.label for one in metas}
    assert labels == ({"walk", "sit"} if "walk" in paths else {None})


def test_a_draft_takes_label_files_and_tells_of_others(tmp_path: Path) -> None:
    write(tmp_path, "p01.csv", "p02.csv", "p03.txt")
    for name in ("p01", "p02"):
        (tmp_path / f"{name}_labels.csv").write_text("start_s,end_s,label\n0,5,walk\n6,12,sit\n")
    (tmp_path / "p01.mp4").write_bytes(b"")
    (one,) = draft(Source(str(tmp_path)))
    assert '# video: {file: "{recording}.mp4"' in one.text
    assert "# not described, since their names do not fit: p03.txt" in one.text
    (tmp_path / one.path).write_text(one.text)
    keys = yaml.safe_load(one.text)
    assert keys["labels"] == {"file": "{recording}_labels.csv"}
    assert {name: found[2] for name, found in opened(tmp_path).items()} == {
        "p01": [(0, 5, "walk"), (6, 12, "sit")],
        "p02": [(0, 5, "walk"), (6, 12, "sit")],
    }


def test_recordings_are_read_as_they_are_written(tmp_path: Path) -> None:
    """Each file's own rows, not another's."""
    for number in range(3):
        table = text_table([f"{t:.2f}" for t in TIMES], VALUES + number)
        (tmp_path / f"s{number}.csv").write_text(table)
    describe(tmp_path, of_files("{recording}.csv"))
    reader = create_reader("folder", str(tmp_path))

    def first(recording: Recording) -> np.ndarray:
        return read_sensor(recording.devices[0].sensors[0])[1][0]

    for number, ref in enumerate(reader.recordings()):
        with reader.open(ref) as recording:
            np.testing.assert_allclose(first(recording), VALUES[0, :3] + number, atol=1e-6)
            assert f"s{number}.csv by its column t" in recording.sync


def test_the_documented_description_of_files_is_read(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs/folder.md").read_text()
    (block,) = re.findall(r"<!-- files -->\n```yaml\n(.*?)```", docs, re.DOTALL)
    (tmp_path / "recording.yaml").write_text(block)
    for name in ("p01_walk", "p02_sit"):
        for kind in ("acc", "gyro"):
            (tmp_path / f"{name}_{kind}.csv").write_text("x,y,z\n0,0,1\n0,0,1\n")
    found = opened(tmp_path)
    assert {name: (one[0], one[2][0][2]) for name, one in found.items()} == {
        "p01_walk": ("folder-p01", "walk"),
        "p02_sit": ("folder-p02", "sit"),
    }
