"""An index that was altered: verify finds it, opening the shards refuses it, and no traceback."""

import json
import tracemalloc
from pathlib import Path

import pytest

from primus_scale.data.index import read_index
from primus_scale.data.reader import load_windows
from primus_scale.data.shard_set import ShardSet
from shards.write.verify import verify
from tests.index_edits import BELIEVED, EDITS, bit_flips, flips
from tests.shard_factory import edit_index, make_blocks, make_windows, write_packed

MOST_BYTES = 2**26


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, of two records and of one, with sessions."""
    windows = sorted(make_windows(12), key=lambda window: window.meta.placement)
    options = {"shard_bytes": 12_000, "provenance": {"seed": 1, "né": "ü"}, "sessions": True}
    write_packed(str(tmp_path), make_blocks(windows, block=4), **options)
    shards = json.loads((tmp_path / "index.json").read_text())["shards"]
    assert [len(shard["records"]) for shard in shards] == [2, 1]
    parts = [[part[1:] for part in record] for shard in shards for record in shard["sessions"]]
    assert parts == [[[4, 5.0]], [[1, 0.0], [1, 0.0], [2, 5.0]], [[3, 5.0], [1, 0.0]]]
    assert verify(str(tmp_path)).ok
    return tmp_path


def check_refused(folder: Path) -> None:
    url = str(folder)
    faults = verify(url).faults
    assert faults
    assert all(len(fault) < 1_000 and "\n" not in fault for fault in faults)
    with pytest.raises((ValueError, FileNotFoundError), match=r"index\.json|shard-0"):
        ShardSet.open(url)


def test_bytes_replaced(folder: Path) -> None:
    """Every 5th: all of them are for tests/integration/test_damaged_data.py."""
    path = folder / "index.json"
    whole = path.read_bytes()
    for number, text in enumerate(flips(whole, seed=0)):
        if number % 5 == 0:
            path.write_bytes(text)
            with pytest.raises(ValueError, match=r"index\.json"):
                read_index(str(folder))
        if number % 50 == 0:
            check_refused(folder)


def test_bits_turned_over(folder: Path) -> None:
    """Every 43rd."""
    path = folder / "index.json"
    for number, text in enumerate(bit_flips(path.read_bytes())):
        if number % 43 == 0:
            path.write_bytes(text)
            with pytest.raises(ValueError, match=r"index\.json"):
                read_index(str(folder))


@pytest.mark.parametrize("where", [0, 1, 100, -65, -2, -1])
def test_cut(folder: Path, where: int) -> None:
    path = folder / "index.json"
    path.write_bytes(path.read_bytes()[:where])
    check_refused(folder)


@pytest.mark.parametrize("what", EDITS)
def test_structural_edits(folder: Path, what: str) -> None:
    edit_index(folder, EDITS[what], seal=False)
    tracemalloc.start()
    check_refused(folder)
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("what", sorted(EDITS.keys() - {"no schema"} - BELIEVED))
def test_structural_edits_that_are_sealed(folder: Path, what: str) -> None:
    """The rest of the folder tells against them."""
    edit_index(folder, EDITS[what])
    tracemalloc.start()
    faults = verify(str(folder)).faults
    assert faults
    assert all(len(fault) < 1_000 and "\n" not in fault for fault in faults)
    try:  # what training does not compare it may read; else it says what is wrong
        load_windows(str(folder))
    except (ValueError, FileNotFoundError) as error:
        assert "index.json" in str(error) or "shard-0" in str(error)
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("what", sorted(BELIEVED))
def test_sealed_edits_that_nothing_contradicts(folder: Path, what: str) -> None:
    """The seal is no signature. They are another run's data, though: the digest differs."""
    before = read_index(str(folder)).digest
    edit_index(folder, EDITS[what])
    assert len(load_windows(str(folder))) == 12
    assert read_index(str(folder)).digest != before
