"""Windows without their pictures: read from behind them, checked as ever."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.data.index import read_index, write_index
from primus_scale.data.reader import load_windows
from primus_scale.data.record_columns import TailEntry
from primus_scale.sample import Window
from shards.write.verify import verify
from tests.shard_factory import make_blocks, make_jpeg, make_windows, write_packed, write_windows

WINDOWS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Window shards with two pictures a window; every third window has none."""
    write_windows(str(tmp_path), with_pictures())
    return tmp_path


def with_pictures() -> list[Window]:
    windows = make_windows(WINDOWS, frames=2)
    pictures = (make_jpeg(10), make_jpeg(200))
    return [replace(w, frames=pictures if i % 3 else ()) for i, w in enumerate(windows)]


def flip(folder: Path, number: int, member: bytes) -> None:
    """Change a byte in the middle of a member of record ``number``."""
    entry = read_index(str(folder)).shards[0].records[number]
    path = next(folder.glob("*.tar"))
    data = bytearray(path.read_bytes())
    header = data.index(member, entry.offset, entry.offset + entry.length) // 512 * 512
    data[header + 512 + 200] ^= 0x40
    path.write_bytes(data)


def test_all_but_the_pictures_is_as_in_a_whole_read(folder: Path) -> None:
    whole, part = load_windows(str(folder)), load_windows(str(folder), pictures=False)
    assert part.metas == whole.metas
    for name in ("imu", "uid", "recording", "label"):
        assert torch.equal(getattr(part.batch, name), getattr(whole.batch, name))
    assert whole.batch.frames == [window.frames for window in with_pictures()]
    assert part.batch.frames == [()] * WINDOWS


def test_pictures_are_not_read(folder: Path) -> None:
    """Damage to one stops a whole read, and nothing that needs none."""
    flip(folder, 4, b".frame01.jpg")
    assert len(load_windows(str(folder), pictures=False)) == WINDOWS
    with pytest.raises(ValueError, match=r"record 4 \(bytes .* is not what was written"):
        load_windows(str(folder))


@pytest.mark.parametrize("number", [3, 4])
def test_samples_are_checked_as_ever(folder: Path, number: int) -> None:
    flip(folder, number, b".imu.npy")
    with pytest.raises(ValueError, match=rf"record {number} \(bytes .* is not what was written"):
        load_windows(str(folder), pictures=False)


def test_folders_of_earlier_versions_are_read_whole(folder: Path) -> None:
    index = read_index(str(folder))
    assert all(shard.tails for shard in index.shards)
    older = replace(index, shards=tuple(replace(s, tails=()) for s in index.shards))
    write_index(older, str(folder))
    assert "tails" not in (folder / "index.json").read_text()
    assert load_windows(str(folder), pictures=False).batch.frames == [()] * WINDOWS


def test_shards_without_pictures_need_no_tails(tmp_path: Path) -> None:
    write_windows(str(tmp_path / "windows"), make_windows(WINDOWS, frames=0))
    write_packed(str(tmp_path / "packed"), make_blocks(make_windows(WINDOWS)))
    for name in ("windows", "packed"):
        assert all(shard.tails == () for shard in read_index(str(tmp_path / name)).shards)
        whole = load_windows(str(tmp_path / name))
        part = load_windows(str(tmp_path / name), pictures=False)
        np.testing.assert_array_equal(part.imu, whole.imu)


def test_tails_that_do_not_fit_are_found(folder: Path) -> None:
    index = read_index(str(folder))
    assert verify(str(folder)).faults == []
    shard = index.shards[0]
    wrong = (shard.tails[0]._replace(crc32=shard.tails[0].crc32 ^ 1), *shard.tails[1:])
    write_index(
        replace(index, shards=(replace(shard, tails=wrong), *index.shards[1:])), str(folder)
    )
    assert any("record 0: tail: its crc32 differs" in f for f in verify(str(folder)).faults)
    with pytest.raises(ValueError, match=r"record 0 .* is not what was written"):
        load_windows(str(folder), pictures=False)
    with pytest.raises(ValueError, match="tails for"):
        replace(shard, tails=shard.tails[:-1])
    with pytest.raises(ValueError, match=r"tails\[0\] is 0 of"):
        replace(shard, tails=(TailEntry(0, 0), *shard.tails[1:]))
