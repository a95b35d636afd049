"""Shard folders as one set: bad ones are refused when opened, labels and statistics are joined."""

from dataclasses import replace

import numpy as np
import pytest

from primus_scale.data.shard_set import ShardSet, check_same_input
from tests.shard_factory import TEACHERS, make_blocks, make_windows, write_packed, write_windows


@pytest.fixture
def packed(tmp_path):
    url = tmp_path / "packed"
    write_packed(str(url), make_blocks(make_windows(64)), shard_bytes=20_000)
    assert len(list(url.glob("*.tar"))) > 1
    return url


def test_missing_shard(packed):
    (packed / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"packed/shard-000001\.tar is missing.*restore it"):
        ShardSet.open(str(packed))


def test_truncated_shard(packed):
    path = packed / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"shard-000001\.tar has \d+ bytes, the index says \d+"):
        ShardSet.open(str(packed))


@pytest.mark.parametrize("position", [0, 600, -3000])
def test_altered_bytes(packed, position):
    path = packed / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[position if position >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)
    shard_set = ShardSet.open(str(packed))
    with pytest.raises(
        ValueError,
        match=r"shard-000000\.tar: record 0 .* primus-scale shards verify .*packed, restore",
    ):
        shard_set.read_block(0)


def test_shard_cut_while_open(packed):
    shard_set = ShardSet.open(str(packed))
    path = packed / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="is not what was written"):
        shard_set.read_block(0)


def test_no_folder():
    with pytest.raises(ValueError, match=r"data\.train"):
        ShardSet.open([])


def test_mixed_embedding_keys(packed, tmp_path):
    other = {**TEACHERS, "text": replace(TEACHERS["text"], key="another-key")}
    write_packed(
        str(tmp_path / "other"),
        make_blocks(make_windows(8, seed=1), teachers=other),
        teachers=other,
    )
    with pytest.raises(
        ValueError, match=r"packed and .*other mix text embeddings: key text-key .* another-key"
    ):
        ShardSet.open([str(packed), str(tmp_path / "other")])


@pytest.mark.parametrize("field", ["rate_hz", "window_samples", "kind", "units"])
def test_folders_must_be_alike(packed, tmp_path, field):
    other = write_other(tmp_path / "other", field)
    with pytest.raises(ValueError, match=rf"packed and .*other cannot be read as one set: {field}"):
        ShardSet.open([str(packed), other])


@pytest.mark.parametrize("field", ["rate_hz", "window_samples", "units"])
def test_windows_that_one_encoder_cannot_take(packed, tmp_path, field):
    train, other = ShardSet.open(str(packed)), ShardSet.open(write_other(tmp_path / "b", field))
    with pytest.raises(ValueError, match=rf"packed and .*b do not suit one encoder: {field} is"):
        check_same_input(train, other)


def test_an_encoder_takes_windows_of_either_kind(packed, tmp_path):
    check_same_input(ShardSet.open(str(packed)), ShardSet.open(write_other(tmp_path / "b", "kind")))


def write_other(folder, field):
    """Shards that differ from ``packed`` in one thing; returns their URL."""
    url = str(folder)
    windows = make_windows(8, seed=1, samples=20 if field == "window_samples" else 40)
    if field == "kind":
        write_windows(url, windows)
    else:
        units = {"units": ("g",) * 6} if field == "units" else {}
        write_packed(url, make_blocks(windows), **units)
    if field == "rate_hz":
        index = folder / "index.json"
        index.write_text(index.read_text().replace('"rate_hz":50.0', '"rate_hz":100.0'))
    return url


def test_labels_of_folders_are_joined(packed, tmp_path):
    windows = make_windows(12, seed=1)
    windows = [
        replace(w, meta=replace(w.meta, label=("run", "walk", None)[number % 3]))
        for number, w in enumerate(windows)
    ]
    labels = ("run", "walk")
    write_packed(str(tmp_path / "b"), make_blocks(windows, labels=labels), labels=labels)
    shard_set = ShardSet.open([str(packed), str(tmp_path / "b")])
    assert shard_set.labels == ("lie", "sit", "walk", "run")
    for record in range(len(shard_set)):
        block = shard_set.read_block(record)
        names = [*shard_set.labels, None]
        assert [names[label] for label in block.label] == [meta.label for meta in block.metas]


def test_a_folder_may_lack_a_modality(packed, tmp_path):
    blocks = make_blocks(make_windows(8, seed=1), teachers={})
    write_packed(str(tmp_path / "imu"), blocks, teachers={})
    shard_set = ShardSet.open([str(tmp_path / "imu"), str(packed)])
    assert shard_set.teachers == TEACHERS
    assert shard_set.windows == 72


def test_statistics_are_those_of_all_windows(packed, tmp_path):
    windows = make_windows(30, seed=1)
    windows = [replace(window, imu=3 * window.imu + 1) for window in windows]
    write_packed(str(tmp_path / "b"), make_blocks(windows))
    shard_set = ShardSet.open([str(packed), str(tmp_path / "b")])
    everything = np.stack([w.imu for w in [*make_windows(64), *windows]]).astype(np.float64)
    np.testing.assert_allclose(shard_set.mean, everything.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(shard_set.std, everything.std(axis=(0, 2)), rtol=1e-9)


def test_records_of_both_kinds_hold_the_same_windows(packed, tmp_path):
    windows = make_windows(64)
    write_windows(str(tmp_path / "windows"), windows)
    one = ShardSet.open(str(tmp_path / "windows"))
    many = ShardSet.open(str(packed))
    assert [one.read_window(record).meta for record in range(64)] == [w.meta for w in windows]
    block = many.read_block(2)
    for row in range(16):
        single = one.read_block(32 + row)
        np.testing.assert_array_equal(single.imu[0], block.imu[row])
        assert single.uid[0] == block.uid[row]
        assert single.frames == (windows[32 + row].frames,)
