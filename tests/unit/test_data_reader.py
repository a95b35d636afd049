"""Batches: the same for any number of ranks and threads, from any step on, and nothing lost."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch

from primus_scale.config import DataConfig
from primus_scale.data.reader import ShardSet, batches, load_windows
from tests.shard_factory import make_blocks, make_windows, write_packed, write_windows

WINDOWS = 100
BATCH = 24


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("packed"))
    write_packed(url, make_blocks(make_windows(WINDOWS)), shard_bytes=40_000)
    return ShardSet.open(url)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("windows"))
    write_windows(url, make_windows(WINDOWS, frames=2))
    return ShardSet.open(url)


def read(shard_set, **options):
    config = DataConfig(
        train=("unused",),
        shuffle_blocks=options.pop("shuffle_blocks", 2),
        reader_threads=options.pop("threads", 2),
        prefetch_batches=options.pop("prefetch", 2),
    )
    options = {"batch": BATCH, "seed": 0, "stop_step": 10, **options}
    with batches(config, shard_set, **options) as loader:
        return list(loader)


def assert_equal(a, b):
    for name in ("imu", "uid", "recording", "start_s", "label"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.embeddings.keys() == b.embeddings.keys()
    for modality in a.embeddings:
        assert torch.equal(a.embeddings[modality], b.embeddings[modality])
        assert torch.equal(a.present[modality], b.present[modality])


def test_rows_are_those_of_their_windows(packed):
    """Every row against the windows that were written, found by uid."""
    windows = {window.meta.uid: window for window in make_windows(WINDOWS)}
    written = {}
    for block in make_blocks(make_windows(WINDOWS)):
        for row, uid in enumerate(block.uid.tolist()):
            written[uid] = {m: block.embeddings[m][row] for m in block.embeddings}
    for batch in read(packed):
        assert batch.frames is None
        assert batch.texts is None
        assert batch.span_s == 39 / 50  # from the first to the last of 40 samples at 50 Hz
        for row, uid in enumerate(batch.uid.tolist()):
            window = windows[uid]
            np.testing.assert_array_equal(batch.imu[row], window.imu)
            assert batch.start_s[row] == window.meta.start_s
            label = batch.label[row].item()
            assert (None if label < 0 else packed.labels[label]) == window.meta.label
            for modality in ("video", "text"):
                np.testing.assert_array_equal(
                    batch.embeddings[modality][row], written[uid][modality].astype(np.float32)
                )
                assert batch.present[modality][row].item() == bool(window.meta.texts)


@pytest.mark.parametrize("kind", ["packed", "single"])
def test_every_window_as_often_as_the_others(kind, request):
    """25 full batches are six epochs, and none has a window twice."""
    loaded = read(request.getfixturevalue(kind), stop_step=25)
    assert all(len(set(batch.uid.tolist())) == BATCH for batch in loaded)
    times = Counter(torch.cat([batch.uid for batch in loaded]).tolist())
    assert times == {window.meta.uid: 6 for window in make_windows(WINDOWS)}


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_global_batch(packed, world):
    whole = read(packed)
    shares = [read(packed, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        for name in ("imu", "uid", "label"):
            joined = torch.cat([getattr(share[step], name) for share in shares])
            assert torch.equal(joined, getattr(batch, name)), name
        for modality, embeddings in batch.embeddings.items():
            joined = torch.cat([share[step].embeddings[modality] for share in shares])
            assert torch.equal(joined, embeddings)


def test_a_rank_reads_only_the_records_it_needs(tmp_path):
    """Rank 0 of 2 meets no altered record that only rank 1 has rows of."""
    url = tmp_path / "packed"
    index = write_packed(str(url), make_blocks(make_windows(64), block=8), shard_bytes=1)
    shard_set = ShardSet.open(str(url))
    needed = {
        rank: {
            int(uid)
            for batch in read(
                shard_set, batch=32, stop_step=1, shuffle_blocks=1, rank=rank, world=2
            )
            for uid in batch.uid
        }
        for rank in (0, 1)
    }
    own = [
        record
        for record in range(len(shard_set))
        if not needed[0] & set(shard_set.read_block(record).uid.tolist())
        and needed[1] & set(shard_set.read_block(record).uid.tolist())
    ]
    for record in own:
        path = url / index.shards[record].name
        path.write_bytes(b"\xff" * path.stat().st_size)
    assert own
    options = {"batch": 32, "stop_step": 1, "shuffle_blocks": 1, "prefetch": 1, "world": 2}
    assert len(read(shard_set, rank=0, **options)) == 1
    with pytest.raises(ValueError, match="is not what was written"):
        read(shard_set, rank=1, **options)


def test_ranks_together_read_few_records_twice(tmp_path, monkeypatch):
    """Reads do not grow with the ranks: each of 4 reads its quarter of a group, and the edges."""
    write_packed(str(tmp_path), make_blocks(make_windows(512, frames=0), block=16))
    shard_set = ShardSet.open(str(tmp_path))
    reads = []
    read_block = ShardSet.read_block

    def count(self, record):
        reads.append(record)
        return read_block(self, record)

    monkeypatch.setattr(ShardSet, "read_block", count)
    for rank in range(4):
        read(shard_set, batch=128, stop_step=4, shuffle_blocks=16, rank=rank, world=4)
    assert set(reads) == set(range(32))
    assert len(reads) < 2 * 32  # rows cut without regard to records: 4 * 32


@pytest.mark.parametrize(
    "options", [{"threads": 1}, {"threads": 5}, {"prefetch": 1}, {"prefetch": 9}]
)
def test_threads_do_not_change_the_batches(packed, options):
    for a, b in zip(read(packed), read(packed, **options), strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("start", [1, 4, 5, 7])
def test_resume_at_any_step(packed, start):
    for a, b in zip(read(packed)[start:], read(packed, start_step=start), strict=True):
        assert_equal(a, b)


def test_live_batches_carry_frames_and_texts(single):
    windows = {window.meta.uid: window for window in make_windows(WINDOWS, frames=2)}
    for batch in read(single, live=True):
        assert batch.embeddings == {}
        for row, uid in enumerate(batch.uid.tolist()):
            assert batch.frames[row] == windows[uid].frames
            assert batch.texts[row] == windows[uid].meta.texts


def test_live_needs_window_shards(packed):
    with pytest.raises(ValueError, match=r"packed shards.*teachers\.mode=embedded"):
        read(packed, live=True)


def test_batch_must_divide(packed):
    with pytest.raises(ValueError, match=r"train\.batch 24 does not divide by the 5 ranks; use 20"):
        read(packed, world=5)


def test_fewer_windows_than_a_batch(packed):
    with pytest.raises(ValueError, match=r"train\.batch is 101, but data\.train holds 100 windows"):
        read(packed, batch=101)


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("primus-")]


def test_close_stops_the_threads(packed):
    config = DataConfig(train=("unused",))
    loader = batches(config, packed, batch=BATCH, seed=0)
    assert not loader_threads()  # none before the first batch, so that a fork is safe
    next(loader)
    assert loader_threads()
    loader.close()
    assert not loader_threads()
    with pytest.raises(StopIteration):
        next(loader)
    loader.close()


def test_an_error_reaches_the_caller_and_stops_the_threads(tmp_path):
    write_packed(str(tmp_path), make_blocks(make_windows(64)), shard_bytes=1)
    shard_set = ShardSet.open(str(tmp_path))
    path = tmp_path / "shard-000002.tar"
    path.write_bytes(b"\xff" * path.stat().st_size)
    loader = batches(DataConfig(train=("unused",)), shard_set, batch=8, seed=0)
    with pytest.raises(ValueError, match=r"shard-000002\.tar: record 0"):
        list(loader)
    assert not loader_threads()


def test_time_waited_is_counted(packed):
    loader = batches(DataConfig(train=("unused",)), packed, batch=BATCH, seed=0, stop_step=3)
    assert loader.waited_s == 0
    start = time.perf_counter()
    list(loader)
    assert 0 < loader.waited_s <= time.perf_counter() - start


def test_packed_reading_has_no_work_per_window(tmp_path):
    """Calls made while reading do not grow with the windows of a block."""

    def calls(block):
        url = str(tmp_path / str(block))
        write_packed(url, make_blocks(make_windows(8 * block, frames=0), block=block))
        shard_set = ShardSet.open(url)
        count = 0

        def tally(_frame, event, _argument):
            nonlocal count
            count += event in ("call", "c_call")

        threading.setprofile(tally)
        try:
            read(shard_set, batch=4 * block, stop_step=4)
        finally:
            threading.setprofile(None)
        return count

    assert calls(256) < 1.5 * calls(16)


@pytest.mark.parametrize("most", [1, 7, 50, 99, 100, 1000])
def test_some_windows_are_spread_over_all_folders(packed, single, tmp_path, most):
    write_packed(str(tmp_path), make_blocks(make_windows(WINDOWS, seed=1)))
    for urls in ([packed.folders[0].url, str(tmp_path)], [single.folders[0].url]):
        everything, loaded = load_windows(urls), load_windows(urls, most=most)
        assert len(loaded) == len(loaded.metas) == min(most, len(everything))
        uids = loaded.batch.uid.tolist()
        assert [meta.uid for meta in loaded.metas] == uids
        places = [everything.batch.uid.tolist().index(uid) for uid in uids]
        assert places == sorted(set(places))
        assert most < 7 or max(places) > 0.8 * len(everything)
        assert torch.equal(loaded.imu, everything.imu[places])


def test_load_windows(packed, single):
    windows = make_windows(WINDOWS, frames=2)
    for shard_set in (packed, single):
        loaded = load_windows(shard_set.folders[0].url)
        assert len(loaded) == WINDOWS
        assert loaded.metas == [window.meta for window in windows]
        np.testing.assert_array_equal(loaded.imu, np.stack([window.imu for window in windows]))
        names = [*loaded.labels, None]
        assert [names[label] for label in loaded.label] == [w.meta.label for w in windows]
    assert loaded.batch.frames == [window.frames for window in windows]
    assert load_windows(packed.folders[0].url).batch.embeddings["video"].shape == (WINDOWS, 8)
