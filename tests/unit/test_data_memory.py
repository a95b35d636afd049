"""Memory that is used again, and checksums that may be left out: what they change, and what not."""

import os
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.config import DataConfig
from primus_scale.data import members
from primus_scale.data.batch_rows import BatchMemory, BatchRows
from primus_scale.data.block_check import _all_finite, check_block, expected_block
from primus_scale.data.reader import _batch_format, batches
from primus_scale.data.record import decode_block, encode_block
from primus_scale.data.record_place import ReadBuffers
from primus_scale.data.shard_set import ShardSet
from primus_scale.storage.folder import Folder
from shards.write.verify import verify
from tests.shard_factory import edit_index, make_blocks, make_windows, write_packed

WINDOWS, BATCH = 96, 8


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("packed"))
    write_packed(url, make_blocks(make_windows(WINDOWS)), shard_bytes=1)
    return ShardSet.open(url)


def loader(shard_set, **options):
    config = DataConfig(train=("unused",), crc=options.pop("crc", "always"), shuffle_blocks=2)
    return batches(config, shard_set, batch=BATCH, seed=0, **options)


def test_batches_that_are_held_do_not_change(packed):
    with loader(packed, stop_step=60) as one, loader(packed, stop_step=60) as other:
        held = [(batch, batch.imu.clone(), batch.embeddings["video"].clone()) for batch in one]
        parts = [(batch.imu[2], batch.imu[2].clone()) for batch in other]
    for batch, imu, video in held:
        assert torch.equal(batch.imu, imu)
        assert torch.equal(batch.embeddings["video"], video)
    for part, copy in parts:
        assert torch.equal(part, copy)


def test_memory_of_dropped_batches_is_used_again(packed):
    with loader(packed, stop_step=200) as batches_:
        places = {batch.imu.data_ptr() for batch in batches_}
    # 8 ahead, 2 prefetched, and those on the way to the caller; fresh memory could be as few by
    # chance, but not while all of them are filled at once
    assert len(places) <= 14


def test_memory_that_was_given_back_last_is_taken_first(packed):
    memory = BatchMemory(_batch_format(packed, False), 4)
    first, last = memory.take(4), memory.take(4)
    memory.give(first)
    memory.give(last)
    imu = last.batch().imu
    assert memory.take(4) is first  # a tensor of the last one still exists
    memory.give(first)
    assert memory.take(4) is first
    del imu
    assert memory.take(4) is last
    assert memory.take(4) is not last


def test_rows_know_whether_a_tensor_of_theirs_exists(packed):
    rows = BatchRows(_batch_format(packed, False), 4)
    assert not rows.in_use()
    part = rows.batch().imu[1:2].reshape(-1)
    assert rows.in_use()
    del part
    assert not rows.in_use()
    video = rows.batch().embeddings["video"].numpy()[0]
    assert rows.in_use()
    del video
    assert not rows.in_use()


def test_embeddings_are_float16_until_they_are_moved(packed):
    with loader(packed, stop_step=1) as batches_:
        (batch,) = batches_
    moved = batch.to("cpu")
    for modality, stored in batch.embeddings.items():
        assert stored.dtype == torch.float16
        assert moved.embeddings[modality].dtype == torch.float32
        assert torch.equal(moved.embeddings[modality], stored.float())


@pytest.mark.parametrize("crc", ["always", "first"])
def test_bytes_that_change_after_the_first_epoch(tmp_path, crc):
    """What ``data.crc=first`` gives up: they are found with ``always`` only."""
    write_packed(str(tmp_path), make_blocks(make_windows(WINDOWS)), shard_bytes=1)
    shard_set = ShardSet.open(str(tmp_path))
    epoch = WINDOWS // BATCH
    with loader(shard_set, stop_step=3 * epoch, crc=crc) as batches_:
        for _ in range(epoch):
            next(batches_)
        for path in tmp_path.glob("*.tar"):
            change_a_sample(path)
        if crc == "always":
            with pytest.raises(ValueError, match="is not what was written"):
                list(batches_)
        else:
            assert len(list(batches_)) == 2 * epoch


@pytest.mark.parametrize("crc", ["always", "first"])
def test_a_shard_that_is_cut_short_is_found(tmp_path, crc):
    write_packed(str(tmp_path), make_blocks(make_windows(WINDOWS)), shard_bytes=1)
    shard_set = ShardSet.open(str(tmp_path))
    with loader(shard_set, crc=crc) as batches_:
        for _ in range(2 * WINDOWS // BATCH):
            next(batches_)
        for path in tmp_path.glob("*.tar"):
            path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match="is not what was written"):
            list(batches_)


def change_a_sample(path: Path) -> None:
    """One bit of the mantissa of a sample."""
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        (member,) = (m for m in archive if m.name.endswith("safetensors"))
    content = bytes(data[member.offset_data :])[: member.size]
    imu = members.decode_member("block.safetensors", content)["imu"]
    at = bytes(data).index(imu.tobytes()[:64])
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_windows_of_older_shards_have_the_same_times(tmp_path):
    """Blocks without the column ``start_s`` take it from their metas."""
    blocks = make_blocks(make_windows(WINDOWS))
    write_packed(str(tmp_path / "new"), blocks)
    older = [replace(block, starts=None) for block in blocks]
    assert "start_s" not in decode_keys(encode_block(older[0]))
    write_packed(str(tmp_path / "old"), older)
    with (
        loader(ShardSet.open(str(tmp_path / "new")), stop_step=12) as new,
        loader(ShardSet.open(str(tmp_path / "old")), stop_step=12) as old,
    ):
        for a, b in zip(new, old, strict=True):
            assert torch.equal(a.start_s, b.start_s)
            assert torch.equal(a.imu, b.imu)
    assert verify(str(tmp_path / "old")).ok


def decode_keys(encoded):
    return set(members.decode_member("block.safetensors", encoded["block.safetensors"]))


def test_a_start_that_differs_from_that_of_the_metas(packed):
    (block, *_) = make_blocks(make_windows(16))
    wrong = replace(block, starts=block.starts + 1)
    decoded = decode_block(encode_block(wrong))
    with pytest.raises(ValueError, match=r"start_s differs from that of meta\.json"):
        check_block(decoded, expected_block(packed.index, 16))
    unlike = replace(block, starts=block.starts.astype(np.float32))
    with pytest.raises(ValueError, match="start_s"):
        decode_block(encode_block(unlike))


def test_headers_are_read_as_the_library_reads_them():
    """A header of ours and all with one bit turned: the quick way says the same, or nothing."""
    info = tarfile.TarInfo("0123456789abcdef.block.safetensors")
    info.size, info.mode = 2_071_512, 0o444
    header = info.tobuf(tarfile.USTAR_FORMAT)
    assert members._parse_plain_header(header) == (info.name, info.size)
    same = 0
    for bit in range(8 * len(header)):
        turned = bytearray(header)
        turned[bit // 8] ^= 1 << bit % 8
        found = members._parse_plain_header(bytes(turned))
        if found is not None:
            assert found == members._parse_any_header(bytes(turned), 0)
            same += 1
    assert same == 0  # the checksum tells


def test_both_checksums_are_the_same():
    isal = pytest.importorskip("isal.isal_zlib")
    data = np.random.default_rng(0).bytes(100_001)
    assert all(isal.crc32(data[at:]) == zlib.crc32(data[at:]) for at in range(0, 100_001, 997))


def test_values_that_are_not_finite():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    for value in halves:
        assert _all_finite(np.array([1, value, 0], np.float16)) == np.isfinite(value)
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    edges = [0x7F7FFFFF, 0x7F800000, 0x7F800001, 0xFF7FFFFF, 0xFF800000, 0xFFFFFFFF, 0x80000000]
    for value in [*bits.view(np.float32), *np.array(edges, dtype=np.uint32).view(np.float32)]:
        assert _all_finite(np.array([value, -1], np.float32)) == np.isfinite(value)
    assert _all_finite(np.empty(0, np.float32))


@pytest.mark.parametrize("remote", [False, True])
def test_ranges_into_memory(tmp_path, remote):
    url = "memory://ranges" if remote else str(tmp_path)
    folder = Folder(url)
    content = np.random.default_rng(0).bytes(10_000)
    folder.create()
    (tmp_path / "x").write_bytes(content)
    folder.put(tmp_path / "x", "file")
    buffers = ReadBuffers()
    for offset, length in ((0, 100), (512, 9_000), (9_900, 100), (9_000, 5_000), (20_000, 10)):
        memory = buffers.take(length)
        count = folder.read_range_into(memory, "file", offset)
        assert bytes(memory[:count]) == content[offset : offset + length]
    with pytest.raises(FileNotFoundError):
        folder.read_range_into(buffers.take(4), "nowhere", 0)
    folder.remove_all()


def test_a_file_that_takes_many_reads(tmp_path, monkeypatch):
    """The system may return less than was asked."""
    (tmp_path / "file").write_bytes(bytes(range(256)) * 4)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda f, parts, at: preadv(f, [parts[0][:100]], at))
    memory = memoryview(bytearray(1000))
    assert Folder(str(tmp_path)).read_range_into(memory, "file", 24) == 1000
    assert bytes(memory) == (bytes(range(256)) * 4)[24:]


def test_an_index_of_another_number_of_windows(tmp_path):
    """Rows beyond a block are never taken, although rows are not checked one by one."""
    write_packed(str(tmp_path), make_blocks(make_windows(32)))

    def fewer(tree):
        tree["shards"][0]["records"][0][2] -= 1

    edit_index(tmp_path, fewer)
    with (
        pytest.raises(ValueError, match="holds 16 windows, the index says 15"),
        loader(ShardSet.open(str(tmp_path))) as batches_,
    ):
        list(batches_)
