"""Crafted members: verify finds each and goes on, reading refuses each, in bounded memory."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from primus_scale.data.reader import load_windows
from primus_scale.data.shard_set import ShardSet
from shards.write.verify import verify
from tests import crafted
from tests.shard_factory import (
    make_blocks,
    make_windows,
    rewrite,
    rewrite_tars,
    write_packed,
    write_windows,
)

MOST_BYTES = 2**26


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def window_folder(folder: Path, record: bytes) -> str:
    """Shards of three windows, of which the middle one is ``record``."""
    write_windows(str(folder), make_windows(3))
    good = [crafted.tar([*crafted.encode_window(w).items()], key) for w, key in pairs()]
    rewrite_tars(folder, [good[0], record, good[1]])
    return str(folder)


def pairs():
    return zip(make_windows(3)[1:], ("1", "2"), strict=True)


def block_folder(folder: Path, record: bytes) -> str:
    """Packed shards of one block, ``record``."""
    write_packed(str(folder), make_blocks(make_windows(4)))
    rewrite_tars(folder, [record], windows=[4])
    return str(folder)


def check_refused(url: str, record: int) -> None:
    """Verify finds the record and no other; reading it, and the folder, is refused by name."""
    with little_memory():
        faults = verify(url).faults
    assert faults
    assert all(len(fault) < 1_000 and "\n" not in fault for fault in faults)
    told = [fault for fault in faults if fault.startswith("shard-000000.tar record ")]
    assert {fault.split(":")[0] for fault in told} == {f"shard-000000.tar record {record}"}
    with little_memory():
        shard_set = ShardSet.open(url)
        for read in (lambda: shard_set.read_block(record), lambda: load_windows(url)):
            with pytest.raises(ValueError, match=rf"/shard-000000\.tar: record {record}: .+verify"):
                read()


@pytest.mark.parametrize("what", crafted.WINDOW_RECORDS)
def test_window_records(tmp_path: Path, what: str) -> None:
    check_refused(window_folder(tmp_path, crafted.WINDOW_RECORDS[what]), 1)


@pytest.mark.parametrize("what", crafted.BLOCK_RECORDS)
def test_packed_records(tmp_path: Path, what: str) -> None:
    check_refused(block_folder(tmp_path, crafted.BLOCK_RECORDS[what]), 0)


@pytest.mark.parametrize("what", crafted.UNREAD_RECORDS["window"])
def test_pictures_that_no_picture_is(tmp_path: Path, what: str) -> None:
    url = window_folder(tmp_path, crafted.UNREAD_RECORDS["window"][what])
    with little_memory():
        (fault,) = verify(url).faults[:1]
    assert fault.startswith("shard-000000.tar record 1: frame00.jpg: ")


@pytest.mark.parametrize("what", crafted.UNREAD_RECORDS["packed"])
def test_metas_that_contradict_their_columns(tmp_path: Path, what: str) -> None:
    faults = verify(block_folder(tmp_path, crafted.UNREAD_RECORDS["packed"][what])).faults
    assert all(fault.startswith("shard-000000.tar record 0: ") for fault in faults)
    assert any("meta.json" in fault for fault in faults)


def test_good_records_are_good(tmp_path: Path) -> None:
    """What the crafted ones are made of."""
    window = crafted.tar([*crafted.window_members().items()])
    url = window_folder(tmp_path / "windows", window)
    assert not [fault for fault in verify(url).faults if "record" in fault]
    assert len(load_windows(url)) == 3
    members = crafted.block_members()
    members["meta.json"] += crafted.BLANKS
    url = block_folder(tmp_path / "packed", crafted.tar([*members.items()]))
    assert verify(url).ok
    assert len(load_windows(url)) == 4


def test_verify_goes_on_after_a_fault(tmp_path: Path) -> None:
    """Every fault of a folder in one go, of a record that is damaged in several ways too."""
    write_windows(str(tmp_path), make_windows(12))
    records = crafted.damaged_windows()
    records[8][1]["meta.json"] = b"{"
    rewrite(tmp_path, records)
    faults = verify(str(tmp_path)).faults
    assert [fault.split(":")[0].removeprefix("shard-000000.tar record ") for fault in faults] == [
        "3",
        "5",
        "6",
        "8",
        "8",
    ]
    assert verify(str(tmp_path)).windows == 9
