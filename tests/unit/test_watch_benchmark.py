"""The watch data of the benchmark, as the reader of one's own files takes them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.watch import MEMBER, _load, _write_recording, main
from shards.files.source import Source
from shards.readers.folder import FolderReader


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two recordings of 3 s: the file's acceleration is in g, its turning in rad/s."""
    samples = [np.full((150, 6), 0.5 + number) for number in range(2)]
    content = {
        "X": samples,
        "y": np.array([1, 0]),
        "y_labels": ["PEN", "ABD"],
        "subject": np.array([3, 4]),
        "side": np.array([1.0, 0.0]),
    }
    buffer = io.BytesIO()
    np.save(buffer, np.array(content, dtype=object), allow_pickle=True)
    path = tmp_path / "seglearn.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MEMBER, buffer.getvalue())
    return path


def test_a_recording_has_its_person_side_exercise_and_units(archive: Path, tmp_path: Path) -> None:
    data = _load(archive)
    for number, samples in enumerate(data["X"]):
        _write_recording(data, number, samples, tmp_path / "raw" / f"r{number}")
    reader = FolderReader(Source(str(tmp_path / "raw")))
    refs = reader.recordings()
    with reader.open(refs[0]) as first, reader.open(refs[1]) as second:
        assert (first.person, first.session) == ("watch-p03", "p03-right")
        assert (second.person, second.session) == ("watch-p04", "p04-left")
        assert (first.labels[0].label, second.labels[0].label) == ("ABD", "PEN")
        assert first.devices[0].placement == "right wrist"
        assert [sensor.unit for sensor in first.devices[0].sensors] == ["g", "rad/s"]
        for sensor in first.devices[0].sensors:
            (chunk,) = sensor.read()
            assert np.allclose(np.diff(chunk.time_s), 0.02)
            assert np.array_equal(chunk.values, np.full((150, 3), 0.5))


def test_a_missing_archive_is_told_with_the_command_that_gets_it(tmp_path: Path, capsys) -> None:
    arguments = ["--archive", str(tmp_path / "none.whl"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "pip download --no-deps seglearn" in capsys.readouterr().err
