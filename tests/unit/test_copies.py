"""Recordings that lie in the source twice are told by the build, by encode and on the card."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from primus_scale.cli import main
from shards.ingest.copies import find_copies
from tests.encoder_factory import export_small_encoder
from tests.recording_folder import write_recordings


def test_pairs_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    recordings = [(f"r{n}", rng.integers(-40, 40, 30).tolist()) for n in range(6)]
    recordings += [("same", recordings[0][1]), ("none", []), ("alone", [10**9, -(2**63)])]
    told = find_copies(recordings)
    expected = 0
    for (one, left), (other, right) in itertools.combinations(recordings, 2):
        if shared := len(set(left) & set(right)):
            expected += 1
            start = f"{one} and {other} hold equal windows: {shared} of {len(left)} and of "
            assert any(line.startswith(f"{start}{len(right)}; ") for line in told)
    twice = [name for name, own in recordings if len(set(own)) < len(own)]
    assert len(told) == expected + len(twice)
    assert find_copies([("a", [1]), ("b", [2])]) == find_copies([]) == ()


def test_a_recording_under_two_names_is_told_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_recordings(source, range(2))
    shutil.copytree(source / "person 1/walk 001", source / "person 7/again")
    names = ("person 1-walk 001", "person 7-again")
    build = ["shards", "build", "folder", "--src", str(source), "--workers", "1"]
    assert main([*build, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    line = f"{names[0]} and {names[1]} hold equal windows: 1 of 1 and of 1; if one is a copy"
    assert f"  COPIES   {line}" in printed
    (told,) = json.loads((out / "ingest.json").read_text())["copies"]
    assert told.startswith(line)
    assert main(["shards", "stats", str(out)]) == 0
    assert "Recordings with equal windows" in (out / "card.html").read_text()
    assert "Equal windows are in 1 pair of recordings" in (out / "card.html").read_text()
    capsys.readouterr()
    encoder = export_small_encoder(tmp_path / "encoder")
    command = ["encode", "--encoder", encoder, "--src", str(source), "--reader", "folder"]
    assert main([*command, "--out", str(tmp_path / "f.parquet")]) == 0
    assert f"  COPIES   {line}" in capsys.readouterr().out


def test_two_devices_of_one_file_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    write_recordings(source, [0])
    tree = yaml.safe_load((source / "recording.yaml").read_text())
    tree["devices"].append({**tree["devices"][0], "name": "phone"})
    (source / "recording.yaml").write_text(yaml.safe_dump(tree))
    build = ["shards", "build", "folder", "--src", str(source), "--workers", "1"]
    assert main([*build, "--out", str(tmp_path / "out")]) == 0
    assert "holds equal windows, 2 of them twice; do two of its devices" in capsys.readouterr().out
