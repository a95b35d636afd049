"""Ego4D: what is said where files are missing, damaged or wrong."""

from pathlib import Path

import pytest

from shards.readers import create_reader
from tests.ego4d_factory import (
    HEADER,
    OTHER,
    UID,
    narration,
    opened,
    refs_of,
    video_entry,
    write_imu,
    write_metadata,
    write_narrations,
)
from tests.recording_factory import sample_times


def test_narrations_that_are_not_there_are_told(tmp_path: Path) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(tmp_path)
    assert "no narration.json" in opened(tmp_path).notes
    write_narrations(tmp_path, {OTHER: {}})
    assert "no narrations: not in narration.json" in opened(tmp_path).notes
    write_narrations(tmp_path, {UID: {"narration_pass_2": None, "status": "redacted"}})
    assert "no narrations in pass 1 or 2" in opened(tmp_path).notes
    write_narrations(tmp_path, {UID: {"narration_pass_1": {"narrations": [{"timestamp_sec": 1}]}}})
    message = rf"narration\.json: a narration of {UID} has no field narration_text, but timestamp"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_wrong_options_are_told(tmp_path: Path) -> None:
    for passes in ("3", "", "one"):
        with pytest.raises(ValueError, match=r"option passes=.*: write 1, 2 or 1,2"):
            create_reader("ego4d", str(tmp_path), {"passes": passes})


def test_damaged_files_are_named(tmp_path: Path) -> None:
    time_s = sample_times(200, 1)
    write_imu(tmp_path, time_s)
    write_metadata(tmp_path)
    write_narrations(tmp_path, {UID: {"narration_pass_1": {"narrations": []}}})
    for name in ("v2/ego4d.json", "v2/annotations/narration.json"):
        path = tmp_path / name
        whole = path.read_bytes()
        for data in (b"", whole[: len(whole) // 2], b"<html>"):
            path.write_bytes(data)
            with pytest.raises(ValueError, match=rf"{path.name}, byte \d+: .*download it again"):
                refs_of(tmp_path)
        path.write_bytes(whole)
    write_metadata(tmp_path, {"uid": UID})
    with pytest.raises(ValueError, match=r"ego4d\.json: video 0 has no field video_uid, but uid"):
        refs_of(tmp_path)
    write_metadata(tmp_path)
    path = tmp_path / "v2" / "imu" / f"{UID}.csv"
    lines = path.read_text().splitlines()
    for content, message in (
        ("", "no row, it is empty"),
        (HEADER, "no row below line 1"),
        ("\n".join([*lines[:9], lines[9][:30]]), r"line 10 has \d cells, not 9"),
        (
            "\n".join([*lines[:3], lines[3].replace("0,", "x,", 1)]),
            "column component_idx holds 'x'",
        ),
        ("\n".join([*lines[:3], lines[3].replace("0,", ",", 1)]), "component_idx is empty or neg"),
        ("\n".join([lines[0].replace("gyro_x", "gx"), *lines[1:]]), "has no column 'gyro_x'"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"{UID}\.csv.*{message}"):
            opened(tmp_path)


def test_missing_and_double_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ego4d\.json below .*--metadata"):
        refs_of(tmp_path)
    write_metadata(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no imu/<video_uid>\.csv below"):
        refs_of(tmp_path)
    write_imu(tmp_path, sample_times(200, 1))
    write_imu(tmp_path / "ältere", sample_times(200, 1))
    with pytest.raises(ValueError, match=rf"video {UID} has two IMU files: .*v2/.* and .*ältere"):
        refs_of(tmp_path)
    (tmp_path / "ältere" / "v2" / "imu" / f"{UID}.csv").unlink()
    write_metadata(tmp_path / "ältere")
    with pytest.raises(ValueError, match=r"ego4d\.json and .*ego4d\.json are of two versions"):
        refs_of(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"redacted_intervals": 5}, "its field redacted_intervals is 5, no list"),
        ({"redacted_intervals": [3]}, "a redacted interval is no object with a field end_sec, but"),
        ({"redacted_intervals": [{"end_sec": 3}]}, "a redacted interval has no field start_sec"),
        (
            {"redacted_intervals": [{"start_sec": "1", "end_sec": 3}]},
            "a redacted interval: its field start_sec is '1', no number",
        ),
        ({"video_components": 2}, "its field video_components is 2, no list"),
        ({"scenarios": "Cooking"}, "its field scenarios is 'Cooking', no list"),
        ({"scenarios": [1]}, r"its scenarios \[1\] are not all text"),
        ({"duration_sec": "12"}, "its field duration_sec is '12', no number"),
        ({"device": 7}, "its field device is 7, no text"),
    ],
)
def test_a_wrong_entry_fails_its_own_video_only(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    for uid in (UID, OTHER):
        write_imu(tmp_path, sample_times(200, 1), uid=uid)
    write_metadata(tmp_path, video_entry(**fields), video_entry(OTHER))
    assert [ref.name for ref in refs_of(tmp_path)] == [UID, OTHER]
    with pytest.raises(ValueError, match=rf"ego4d\.json: video {UID}:? {message}"):
        opened(tmp_path)
    assert opened(tmp_path, OTHER).person == "ego4d-42"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("text", "is no object with a field narration_pass_1, but 'text'"),
        ({"narration_pass_1": []}, r"its field narration_pass_1 is \[\], no object"),
        ({"narration_pass_1": {"narrations": {"a": 1}}}, "its field narrations is .*, no list"),
        (
            {"narration_pass_1": {"narrations": ["#C C nods"]}},
            "is no object with a field timestamp",
        ),
        (
            {"narration_pass_1": {"narrations": [narration(1, 17)]}},
            "its field narration_text is 17, no text",
        ),
    ],
)
def test_wrong_narrations_are_named(tmp_path: Path, entry: object, message: str) -> None:
    write_imu(tmp_path, sample_times(200, 1))
    write_metadata(tmp_path)
    write_narrations(tmp_path, {UID: entry})
    with pytest.raises(ValueError, match=rf"narration\.json: a narration of {UID}:? {message}"):
        opened(tmp_path)
