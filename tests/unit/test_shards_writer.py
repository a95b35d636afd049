"""Writers: bad windows die here, unfinished folders have no index, equal windows equal bytes."""

import gc
import hashlib
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from primus_scale.data.index import read_index
from primus_scale.data.members import split_record
from primus_scale.data.record import decode_window
from primus_scale.storage.folder import Folder
from shards.write.shard_file import ShardRecord, write_shard
from shards.write.writer import PackedShardWriter, WindowShardWriter
from tests.permissions import bound_by_permissions
from tests.shard_factory import (
    RATE_HZ,
    TEACHERS,
    make_blocks,
    make_windows,
    write_packed,
    write_windows,
)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_equal_windows_give_equal_bytes(tmp_path):
    write_windows(str(tmp_path / "a"), make_windows(20), shard_bytes=30_000)
    write_windows(str(tmp_path / "b"), make_windows(20), shard_bytes=30_000)
    write_packed(str(tmp_path / "c"), make_blocks(make_windows(20)))
    write_packed(str(tmp_path / "d"), make_blocks(make_windows(20)))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "c") == contents(tmp_path / "d")


def test_bytes_are_those_of_webdatasets_writer(tmp_path):
    members = {"meta.json": b"{}", "imu.npy": bytes(700), "frame00.jpg": b"\xff" * 512}
    with webdataset.TarWriter(
        str(tmp_path / "theirs.tar"), user="", group="", mtime=0, encoder=False
    ) as theirs:
        for key in ("a" * 16, "b" * 16):
            theirs.write({"__key__": key, **members})
    records = [ShardRecord(key, members) for key in ("a" * 16, "b" * 16)]
    write_shard(Folder(str(tmp_path)), "ours.tar", records)
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
def test_plain_webdataset_streams_the_shards(tmp_path):
    windows = make_windows(20)
    index = write_windows(str(tmp_path), windows, shard_bytes=30_000)
    assert len(index.shards) > 1
    urls = [str(tmp_path / shard.name) for shard in index.shards]
    dataset = webdataset.WebDataset(urls, shardshuffle=False)
    streamed = [
        decode_window({name: data for name, data in sample.items() if not name.startswith("__")})
        for sample in dataset
    ]
    gc.collect()
    assert [w.meta for w in streamed] == [w.meta for w in windows]
    assert [w.frames for w in streamed] == [w.frames for w in windows]
    for window, original in zip(streamed, windows, strict=True):
        np.testing.assert_array_equal(window.imu, original.imu)


def test_index_tells_where_records_lie(tmp_path):
    windows = make_windows(20)
    index = write_windows(str(tmp_path), windows, shard_bytes=30_000)
    uids = []
    for shard in index.shards:
        data = (tmp_path / shard.name).read_bytes()
        assert len(data) == shard.size
        assert hashlib.sha256(data).hexdigest() == shard.sha256
        for entry in shard.records:
            record = data[entry.offset : entry.offset + entry.length]
            uids.append(decode_window(split_record(record)[1]).meta.uid)
    assert uids == [window.meta.uid for window in windows]


def test_statistics(tmp_path):
    windows = make_windows(20)
    imu = np.stack([window.imu for window in windows]).astype(np.float64)
    for index in (
        write_windows(str(tmp_path / "a"), windows),
        write_packed(str(tmp_path / "b"), make_blocks(windows)),
    ):
        np.testing.assert_allclose(index.mean, imu.mean(axis=(0, 2)), rtol=1e-12)
        np.testing.assert_allclose(index.std, imu.std(axis=(0, 2)), rtol=1e-9)


def spoil(window, **changes):
    imu = window.imu.copy()
    if "sample" in changes:
        imu[3, 7] = changes.pop("sample")
    return replace(window, **{"imu": imu, **changes})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sample": np.nan}, "NaN or infinite"),
        ({"sample": -np.inf}, "NaN or infinite"),
        ({"imu": np.zeros((6, 39), np.float32)}, r"imu is float32 \(1, 6, 39\), expected"),
        ({"imu": np.zeros((3, 40), np.float32)}, r"expected float32 \(1, 6, 40\)"),
        ({"imu": np.zeros((6, 40))}, "imu is float64"),
        ({"imu": np.zeros(40, np.float32)}, "expected float32"),
        ({"frames": (b"PNG",)}, "no JPEG"),
        ({"meta": replace(make_windows(4)[3].meta, start_s="late")}, "start_s"),
    ],
)
def test_bad_window_is_named_and_leaves_no_index(tmp_path, change, said):
    windows = make_windows(4)
    windows[3] = spoil(windows[3], **change)
    with pytest.raises(ValueError, match=rf"window {windows[3].meta.uid} \(random/.*{said}"):
        write_windows(str(tmp_path), windows, shard_bytes=1)
    assert contents(tmp_path) == {}


def test_repeated_window(tmp_path):
    windows = make_windows(4)
    with pytest.raises(ValueError, match=rf"window {windows[1].meta.uid} .* drop the duplicate"):
        write_windows(str(tmp_path / "a"), [*windows, windows[1]])
    blocks = make_blocks(windows)
    with pytest.raises(ValueError, match="drop the duplicate"):
        write_packed(str(tmp_path / "b"), [*blocks, *blocks])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.imu.__setitem__((5, 0, 0), np.nan), r"window -?\d+ .* NaN"),
        (lambda b: b.label.__setitem__(2, 3), "label holds ids beyond the 3 class names"),
        (lambda b: b.label.__setitem__(2, -2), "label holds ids"),
        (lambda b: b.uid.__setitem__(2, 3), r"uid differs from that of meta\.json"),
        (lambda b: b.embeddings.pop("text"), r"embeddings \['video'\]"),
        (
            lambda b: b.embeddings.update(text=b.embeddings["video"]),
            "the width of teacher tiny-text",
        ),
        (lambda b: b.embeddings["video"].__imul__(2), "norm 1 where present"),
        (
            lambda b: b.embeddings["video"].__setitem__((0, 0), np.nan),
            r"embeddings\.video holds NaN",
        ),
        (lambda b: b.present["video"].__setitem__(3, True), "0 where absent"),
        (lambda b: b.present.update(video=b.present["video"][:4]), r"present\.video"),
    ],
)
def test_bad_block(tmp_path, change, said):
    block = make_blocks(make_windows(16))[0]
    change(block)
    with pytest.raises(ValueError, match=said):
        write_packed(str(tmp_path), [block])
    assert contents(tmp_path) == {}


def test_existing_output_is_kept(tmp_path):
    write_windows(str(tmp_path), make_windows(20), shard_bytes=30_000)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="already holds shards; choose another folder"):
        write_windows(str(tmp_path), make_windows(4))
    assert contents(tmp_path) == before


def test_overwriting_leaves_nothing_of_the_old(tmp_path):
    write_windows(str(tmp_path), make_windows(20), shard_bytes=30_000)
    (tmp_path / "notes.txt").write_text("mine")
    write_windows(str(tmp_path), make_windows(4), overwrite=True)
    assert contents(tmp_path).keys() == {"index.json", "notes.txt", "shard-000000.tar"}
    assert read_index(str(tmp_path)).windows == 4


def test_leftovers_of_a_killed_run_are_replaced(tmp_path):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.shard_factory import make_windows
        from shards.write.writer import WindowShardWriter
        writer = WindowShardWriter({str(tmp_path)!r}, rate_hz=50.0, shard_bytes=1)
        for window in make_windows(3):
            writer.write(window)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert contents(tmp_path).keys() == {f"shard-00000{n}.tar" for n in range(3)}
    write_windows(str(tmp_path), make_windows(4))
    assert contents(tmp_path).keys() == {"index.json", "shard-000000.tar"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("shard_bytes", [1, 10**9])  # with the shard finished, and with it open
def test_an_exception_leaves_no_index(tmp_path, overwrite, shard_bytes):
    if overwrite:
        write_windows(str(tmp_path), make_windows(20))
    with (
        pytest.raises(KeyError),
        WindowShardWriter(
            str(tmp_path), rate_hz=RATE_HZ, shard_bytes=shard_bytes, overwrite=overwrite
        ) as writer,
    ):
        writer.write(make_windows(1)[0])
        raise KeyError
    assert contents(tmp_path) == {}


def test_nothing_written(tmp_path):
    with (
        pytest.raises(ValueError, match="no window was written to"),
        PackedShardWriter(str(tmp_path), rate_hz=RATE_HZ, teachers=TEACHERS),
    ):
        pass
    assert contents(tmp_path) == {}


def test_read_only_output(tmp_path):
    tmp_path.chmod(0o555)
    with (
        bound_by_permissions(),
        pytest.raises(PermissionError, match=rf"cannot write to {tmp_path}/out: .*writable"),
    ):
        write_windows(str(tmp_path / "out"), make_windows(4))
    assert list(tmp_path.iterdir()) == []


def test_output_is_a_file(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match=rf"cannot write to {tmp_path}/out"):
        write_windows(str(tmp_path / "out"), make_windows(4))
    assert (tmp_path / "out").read_text() == "a file"


def test_full_disk(tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails half-way."""
    script = textwrap.dedent(
        f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.shard_factory import make_windows, write_windows
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            write_windows({str(tmp_path)!r}, make_windows(100))
        except OSError as error:
            print(error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert f"cannot write to {tmp_path}: " in done.stdout
    assert "free space" in done.stdout
    assert contents(tmp_path) == {}
