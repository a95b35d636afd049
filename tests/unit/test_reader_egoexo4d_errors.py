"""Ego-Exo4D: what is said where files are missing, damaged or wrong."""

import json
from pathlib import Path

import pytest

from shards.readers import create_reader
from tests.egoexo4d_factory import (
    CAPTURE,
    COLUMN,
    FRAMES,
    TAKE,
    annotation,
    describe,
    opened,
    refs_of,
    take_entry,
    write_descriptions,
    write_pictures,
    write_takes,
    write_timesync,
)


def test_glasses_of_others(tmp_path: Path) -> None:
    write_takes(tmp_path)
    write_timesync(tmp_path)
    write_pictures(tmp_path)
    write_pictures(tmp_path, camera="aria01", count=2)
    frames = opened(tmp_path).frames
    assert frames is not None and len(frames.times_s()) == FRAMES
    write_takes(tmp_path, take_entry(frame_aligned_videos={}))
    with pytest.raises(ValueError, match=r"aria01 and aria02 recorded this take, and takes\.json"):
        opened(tmp_path)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no .*takes\.json; .*--parts metadata"):
        refs_of(tmp_path)
    write_takes(tmp_path, take_entry("another"))
    with pytest.raises(
        FileNotFoundError, match=r"no takes/<take>/aria01_noimagestreams\.vrs below"
    ):
        refs_of(tmp_path)
    write_takes(tmp_path)
    assert (
        "no atomic descriptions; download them with --parts annotations" in opened(tmp_path).notes
    )
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "atomic_descriptions_val.json").write_text('{"annotations": {}}')
    assert "no atomic descriptions of this take" in opened(tmp_path).notes
    write_timesync(tmp_path)
    write_takes(tmp_path, take_entry(timesync_start_idx=None))
    note = "no timesync rows in takes.json: no times of frames and descriptions"
    assert note in opened(tmp_path).notes
    write_takes(tmp_path, take_entry(), take_entry())
    with pytest.raises(ValueError, match=rf"are both recording {TAKE}"):
        refs_of(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_takes(tmp_path)
    write_timesync(tmp_path)
    write_pictures(tmp_path)
    write_descriptions(tmp_path, annotation(describe(0.1)))
    for name in ("takes.json", "annotations/atomic_descriptions_train.json"):
        path = tmp_path / name
        whole = path.read_bytes()
        for data in (b"", whole[: len(whole) // 2], b"\x00\x01"):
            path.write_bytes(data)
            with pytest.raises(ValueError, match=rf"{path.name}, byte \d+: .*download it again"):
                refs_of(tmp_path)
        path.write_bytes(whole)
    write_takes(tmp_path, {k: v for k, v in take_entry().items() if k != "take_name"})
    with pytest.raises(ValueError, match=r"takes\.json: take number 0 has no field take_name"):
        refs_of(tmp_path)
    write_takes(tmp_path)
    timesync = tmp_path / "captures" / CAPTURE / "timesync.csv"
    lines = timesync.read_text().splitlines()
    for content, message in (
        ("", "no row, it is empty"),
        ("\n".join([lines[0].replace(COLUMN, "x"), *lines[1:]]), f"has no column '{COLUMN}'"),
        ("\n".join([*lines[:24], lines[24][:4]]), r"line 25 has \d cells, not 4"),
    ):
        timesync.write_text(content)
        with pytest.raises(ValueError, match=rf"timesync\.csv.*{message}"):
            opened(tmp_path)
    timesync.write_text("\n".join(lines))
    for wrong, message in (
        ({"descriptions": [{"text": "C nods"}]}, "has no field timestamp, but text"),
        ({"annotator_id": "1"}, "has no field descriptions, but annotator_id"),
        ("text", "is no object with a field descriptions"),
        ({"descriptions": 3}, "its field descriptions is 3, no list"),
    ):
        write_descriptions(tmp_path, wrong)
        with pytest.raises(ValueError, match=rf"train\.json: a description of {TAKE}:? {message}"):
            opened(tmp_path)
    write_descriptions(tmp_path)
    vrs = tmp_path / "takes" / TAKE / "aria02_noimagestreams.vrs"
    for data in (b"", b"no VRS at all, but some text"):
        vrs.write_bytes(data)
        with pytest.raises(ValueError, match=r"aria02_noimagestreams\.vrs is empty, truncated"):
            opened(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"root_dir": 3}, "its field root_dir is 3, no text"),
        ({"root_dir": ["takes"]}, r"its field root_dir is \['takes'\], no text"),
        ({"take_uid": None}, "its field take_uid is None, no text"),
        ({"capture": "unc"}, "its field capture is 'unc', no object"),
        ({"frame_aligned_videos": 5}, "its field frame_aligned_videos is 5, no object"),
        ({"timesync_start_idx": "20"}, "its field timesync_start_idx is '20', no whole number"),
        ({"parent_task_id": [5000]}, r"its field parent_task_id is \[5000\], no whole number"),
    ],
)
def test_a_wrong_entry_fails_its_own_take_only(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    whole = take_entry("whole", take_uid="w")
    write_takes(tmp_path, whole, take_entry(**fields))
    write_pictures(tmp_path)
    (tmp_path / "takes" / TAKE).rename(tmp_path / "takes" / "whole")
    write_pictures(tmp_path)
    refs = refs_of(tmp_path)
    assert [ref.name for ref in refs] == [TAKE, "whole"]
    assert json.loads(json.dumps(refs[0].details)) == refs[0].details
    with pytest.raises(ValueError, match=rf"takes\.json: take number 1: {message}; download it"):
        opened(tmp_path)
    reader = create_reader("egoexo4d", str(tmp_path))
    with reader.open(refs[1]) as recording:
        assert recording.name == "whole"
