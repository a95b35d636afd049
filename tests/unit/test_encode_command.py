"""The command that writes features of shards and of raw recordings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from primus_scale.cli import main
from primus_scale.data.reader import load_windows
from primus_scale.encoders.pretrained import load_encoder
from tests.encoder_factory import export_small_encoder
from tests.recording_folder import write_recordings
from tests.shard_factory import make_windows, write_windows


def encode(encoder: Path, src: Path, out: Path, *more: str) -> int:
    command = ["encode", "--encoder", str(encoder), "--src", str(src), "--out", str(out)]
    return main([*command, *more])


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return Path(export_small_encoder(tmp_path / "encoder"))


def test_features_of_shards_have_their_windows_beside_them(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_windows(str(tmp_path / "shards"), make_windows(20, samples=250))
    out = tmp_path / "deep/features.parquet"
    assert encode(encoder, tmp_path / "shards", out) == 0
    assert "20 windows" in capsys.readouterr().out
    table, loaded = pd.read_parquet(out), load_windows(str(tmp_path / "shards"))
    features = load_encoder(encoder)(loaded.imu).features.detach()
    np.testing.assert_allclose(np.stack(table["features"]), features, rtol=1e-5, atol=1e-5)
    for name in ("person", "recording", "session", "start_s", "label"):
        known = table[name].astype(object).where(table[name].notna(), None)
        assert known.tolist() == [getattr(meta, name) for meta in loaded.metas]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_raw_recordings_go_the_way_of_shards_build(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recordings(tmp_path / "raw", range(2))
    (tmp_path / "raw" / "broken").mkdir()
    out, shards = tmp_path / "features.parquet", tmp_path / "shards"
    assert encode(encoder, tmp_path / "raw", out, "--reader", "folder") == 0
    said = capsys.readouterr()
    assert "2 of 2" in said.out or "2 of 3" in said.out
    options = ["--require", "--frames", "0", "--workers", "1"]
    build = ["shards", "build", "folder", "--src", str(tmp_path / "raw"), "--out", str(shards)]
    assert main([*build, *options]) == 0
    table, loaded = pd.read_parquet(out), load_windows(str(shards))
    assert sorted(table["start_s"]) == sorted(meta.start_s for meta in loaded.metas)
    features = load_encoder(encoder)(loaded.imu).features.detach().numpy()
    both = [np.stack(sorted(map(tuple, some))) for some in (table["features"], features)]
    np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("windows", "more", "told"),
    [
        (100, (), "window_samples is 100, but the encoder takes 250"),
        (250, ("--hop-s", "1"), "of raw recordings; give --reader too"),
        (250, ("--hop-s", "0"), "of raw recordings; give --reader too"),
        (250, ("--reader", "folder"), "recording.yaml"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(
    encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    windows: int,
    more: tuple[str, ...],
    told: str,
) -> None:
    write_windows(str(tmp_path / "shards"), make_windows(4, samples=windows))
    assert encode(encoder, tmp_path / "shards", tmp_path / "out.parquet", *more) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("features.csv", "is written to a file .parquet or .pq; name one"),
        ("shards/index.json", "is written to a file .parquet or .pq; name one"),
        ("raw.parquet", "is there already and is not a table of features; name another file"),
        ("notes.pq", "is there already and is not a table of features; name another file"),
        ("folder.parquet", "is a folder; name a file in it"),
        ("raw.parquet/x.parquet", "is a file; name a folder to write to"),
    ],
)
def test_files_of_others_stay_as_they_are(
    out: str, told: str, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_windows(str(tmp_path / "shards"), make_windows(4, samples=250))
    pd.DataFrame({"acc_x": [1.0]}).to_parquet(tmp_path / "raw.parquet")
    (tmp_path / "notes.pq").write_text("mine")
    (tmp_path / "folder.parquet").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert encode(encoder, tmp_path / "shards", tmp_path / out) == 1
    assert told in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_table_of_before_is_replaced(encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for count in (4, 6):
        write_windows(str(tmp_path / str(count)), make_windows(count, samples=250))
        assert encode(encoder, tmp_path / str(count), out) == 0
        assert len(pd.read_parquet(out)) == count


def test_flags_and_failures_are_told_as_shards_build_tells_them(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recordings(tmp_path / "raw", range(2))
    first = next((tmp_path / "raw").rglob("imu.npy"))
    rows = np.load(first)
    rows[600:, 0] -= 3.0  # its clock is set back
    np.save(first, rows)
    out = tmp_path / "features.parquet"
    assert encode(encoder, tmp_path / "raw", out, "--reader", "folder") == 0
    encoded = capsys.readouterr().out
    build = ["shards", "build", "folder", "--src", str(tmp_path / "raw"), "--workers", "1"]
    assert main([*build, "--out", str(tmp_path / "shards"), "--require", "--frames", "0"]) == 0
    built = capsys.readouterr().out
    flags = [line for line in built.splitlines() if line.startswith("  FLAGGED")]
    assert flags
    assert all(line in encoded for line in flags)


def test_a_table_as_source_is_answered_with_the_reader(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ride.csv").write_text("t,ax\n0,1\n")
    assert encode(encoder, tmp_path / "ride.csv", tmp_path / "out.parquet") == 1
    assert "give their folder and --reader folder" in capsys.readouterr().err
