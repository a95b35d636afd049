"""``shards verify``: counts of a sound folder, and every kind of fault by name."""

from dataclasses import replace

import numpy as np
import pytest

from primus_scale.data.record import encode_block, encode_window
from shards.write.verify import verify
from shards.write.writer import WindowShardWriter
from tests.shard_factory import (
    edit_index,
    make_blocks,
    make_windows,
    rewrite,
    write_packed,
    write_windows,
)


@pytest.fixture
def folder(tmp_path):
    write_windows(str(tmp_path), make_windows(24), shard_bytes=30_000)
    return tmp_path


def only_fault(folder):
    report = verify(str(folder))
    assert not report.ok
    assert len(report.faults) == 1, report.faults
    assert f"FAULT  {report.faults[0]}" in str(report)
    return report.faults[0]


def test_sound_window_shards(folder):
    report = verify(str(folder))
    assert report.ok
    assert report.windows == report.records == 24
    assert report.shards == len(list(folder.glob("*.tar"))) > 1
    assert report.datasets == {"random": 24}
    assert report.placements == {"chest": 12, "left wrist": 12}
    assert report.modalities == {"imu": 24, "video": 18, "text": 18}
    assert report.labels == {"lie": 8, "sit": 8, "(none)": 8}
    text = str(report)
    assert "24 windows in 24 records" in text
    assert "left wrist         12" in text
    assert "no fault found" in text


def test_sound_packed_shards(tmp_path):
    write_packed(str(tmp_path), make_blocks(make_windows(24)))
    report = verify(str(tmp_path))
    assert report.ok
    assert (report.windows, report.records) == (24, 2)
    assert report.modalities == {"imu": 24, "video": 18, "text": 18}


def test_no_index(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*index\.json"):
        verify(str(tmp_path))


def test_wrong_schema(folder):
    edit_index(folder, lambda tree: tree.update(schema=99))
    assert "field schema is 99" in only_fault(folder)


def test_missing_shard(folder):
    (folder / "shard-000001.tar").unlink()
    assert only_fault(folder) == "shard-000001.tar: missing"


def test_extra_shard(folder):
    (folder / "shard-000099.tar").write_bytes(b"")
    assert only_fault(folder).startswith("shard-000099.tar: lies in the folder")


def test_truncated_shard(folder):
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    faults = verify(str(folder)).faults
    assert "record 1: the file ends after" in faults[0]
    assert "shard-000000.tar: has 5000 bytes" in faults[-1]


def test_altered_record(folder):
    path = folder / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    faults = verify(str(folder)).faults
    assert len(faults) == 2
    assert "record 0: crc32 differs" in faults[0]
    assert "sha256 differs" in faults[1]


def test_altered_end(folder):
    path = folder / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert only_fault(folder).startswith("shard-000000.tar: sha256 differs")


def test_grown_shard(folder):
    with (folder / "shard-000000.tar").open("ab") as file:
        file.write(b"\0" * 512)
    assert "bytes, the index says" in only_fault(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: replace(w, imu=np.full_like(w.imu, np.nan)), "holds NaN or infinite samples"),
        (
            lambda w: replace(w, imu=w.imu[:, :-1]),
            "imu is float32 (1, 6, 39), expected float32 (1, 6, 40)",
        ),
        (lambda w: replace(w, meta=replace(w.meta, label="fly")), "labels ['fly'] are none of"),
        (lambda w: replace(w, meta=make_windows(2)[0].meta), "is there more than once"),
        (lambda w: replace(w, frames=(b"\xff\xd8\xffgarbage",)), "frame00.jpg: no picture"),
    ],
)
def test_bad_windows_that_a_writer_let_through(folder, change, said):
    windows = make_windows(24)
    windows[1] = change(windows[1])
    rewrite(folder, [(f"{n:04d}", encode_window(w)) for n, w in enumerate(windows)])
    fault = only_fault(folder)
    assert said in fault
    assert fault.startswith("shard-000000.tar record 1")


@pytest.mark.parametrize("name", ["mean", "std"])
def test_wrong_statistics(folder, name):
    edit_index(folder, lambda tree: tree[name].__setitem__(1, 5.0))
    assert only_fault(folder).startswith(f"index.json: {name} is [")


@pytest.mark.parametrize(
    ("change", "windows", "said"),
    [
        (lambda b: b.embeddings["text"].__imul__(3), 16, "embeddings.text are not of norm 1"),
        (lambda b: b.label.__setitem__(0, 7), 16, "label holds ids beyond"),
        (lambda b: None, 15, "holds 16 windows, the index says 15"),
    ],
)
def test_bad_blocks_that_a_writer_let_through(tmp_path, change, windows, said):
    blocks = make_blocks(make_windows(16))
    write_packed(str(tmp_path), blocks)
    change(blocks[0])
    rewrite(tmp_path, [("block", encode_block(blocks[0]))], windows=[windows])
    assert said in only_fault(tmp_path)


def test_every_fault_is_told(folder):
    (folder / "shard-000000.tar").unlink()
    (folder / "shard-000001.tar").write_bytes(b"")
    (folder / "shard-000077.tar").write_bytes(b"")
    text = str(verify(str(folder)))
    for name in ("shard-000000.tar: missing", "shard-000001.tar: has 0 bytes", "shard-000077.tar"):
        assert name in text


def test_another_file_system():
    """The same on a file system of fsspec that has no local paths."""
    url = "memory://verify-test/windows"
    with WindowShardWriter(url, rate_hz=50.0, shard_bytes=30_000) as writer:
        for window in make_windows(24):
            writer.write(window)
    report = verify(url)
    assert report.ok, str(report)
    assert report.windows == 24
