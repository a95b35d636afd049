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
