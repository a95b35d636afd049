"""Many records are in a file of columns: the same index, found wrong where a byte of it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from primus_scale.config import DataConfig
from primus_scale.data import index as index_module
from primus_scale.data.index import read_index, write_index
from primus_scale.data.reader import batches, load_windows
from primus_scale.data.record_columns import (
    Columns,
    RecordEntry,
    check_positions,
    columns_of,
    pack_records,
)
from primus_scale.data.record_place import list_places
from primus_scale.data.shard_set import ShardSet
from shards.write.verify import verify
from tests.shard_factory import edit_index, make_blocks, make_windows, write_packed, write_windows

WINDOWS = 40


@pytest.fixture(params=["packed", "windows"])
def both(tmp_path, monkeypatch, request):
    """A folder whose records are in its index, and the same with a file of columns."""

    def write(url):
        if request.param == "packed":
            return write_packed(url, make_blocks(make_windows(WINDOWS), block=4), shard_bytes=9_000)
        return write_windows(url, make_windows(WINDOWS, frames=2), shard_bytes=20_000)

    plain, columns = tmp_path / "plain", tmp_path / "columns"
    write(str(plain))
    monkeypatch.setattr(index_module, "RECORDS_IN_JSON", 3)
    write(str(columns))
    assert not (plain / "records.bin").exists()
    assert (columns / "records.bin").exists()
    return plain, columns


def test_the_same_index(both):
    plain, columns = (read_index(str(folder)) for folder in both)
    assert isinstance(columns.shards[0].records, Columns)
    assert columns == plain
    assert plain == columns
    assert list_places(columns.shards) == list_places(plain.shards)
    assert columns.windows == WINDOWS
    assert len(columns.shards) > 1
    text = (both[1] / "index.json").read_text()
    assert all(shard["records"] == [] for shard in json.loads(text)["shards"])


def test_digests_are_of_what_is_read_and_of_what_is_written(both, monkeypatch):
    plain, columns = (read_index(str(folder)) for folder in both)
    assert columns.digest == replace(columns).digest  # which makes it anew
    other = replace(columns, labels=("x", "y", "z"))
    assert other.digest != columns.digest
    changed = [replace(columns.shards[0], sha256="0" * 64), *columns.shards[1:]]
    assert replace(columns, shards=tuple(changed)).digest != columns.digest
    # A folder keeps its digest, whatever the limit is when it is read.
    stays = read_index(str(both[0])).digest
    monkeypatch.setattr(index_module, "RECORDS_IN_JSON", 10**6)
    assert replace(plain).digest == stays


def test_reading(both):
    sets = [ShardSet.open(str(folder)) for folder in both]
    config = DataConfig(train=("unused",), shuffle_blocks=3)
    loaders = [batches(config, each, batch=8, seed=1, stop_step=12) for each in sets]
    for a, b in zip(*loaders, strict=True):
        assert torch.equal(a.uid, b.uid)
        assert torch.equal(a.imu, b.imu)
    assert sets[0].windows_per_record.tolist() == sets[1].windows_per_record.tolist()
    one, other = (load_windows(str(folder), pictures=False) for folder in both)
    assert one.metas == other.metas
    kept = [np.arange(record % 2) for record in range(len(sets[0]))]
    halves = [each.keep(kept) for each in sets]
    assert halves[0].windows == halves[1].windows == len(sets[0]) // 2
    assert halves[0].read_block(1).uid.tolist() == halves[1].read_block(1).uid.tolist()


def test_verify_and_writing_again(both, tmp_path):
    _, columns = both
    assert verify(str(columns)).ok
    index = read_index(str(columns))
    write_index(index, str(tmp_path / "again"))
    for name in ("index.json", "records.bin"):
        assert (tmp_path / "again" / name).read_bytes() == (columns / name).read_bytes()


def test_a_byte_of_the_file(both):
    _, columns = both
    path = columns / "records.bin"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"records\.bin is not what was written"):
            read_index(str(columns))
    assert not verify(str(columns)).ok


@pytest.mark.parametrize("change", ["cut", "longer", "gone"])
def test_a_file_of_another_size(both, change):
    _, columns = both
    path = columns / "records.bin"
    if change == "gone":
        path.unlink()
        with pytest.raises(FileNotFoundError, match=r"no .*records\.bin, which the index names"):
            read_index(str(columns))
        return
    path.write_bytes(path.read_bytes()[:-8] if change == "cut" else path.read_bytes() + b"12345678")
    with pytest.raises(ValueError, match=r"records\.bin has \d+ bytes, the index says \d+; copy"):
        read_index(str(columns))


def counts(change):
    return lambda tree: tree["record_file"].update(counts=change(tree["record_file"]["counts"]))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (counts(lambda c: [c[0] - 1, c[1] + 1, *c[2:]]), "records"),
        (counts(lambda c: [*c, 0]), "record_file: counts has"),
        (counts(lambda c: [*c[:-2], c[-2] + c[-1]]), "too few|is not at byte"),
        (counts(lambda c: []), "the index says"),
        (counts(lambda c: [2**62, *c[1:]]), "the index says"),
        (counts(lambda c: [-1, *c[1:]]), "greater than or equal to 0"),
        (lambda tree: tree["record_file"].update(sha256="0" * 64), "is not what was written"),
        (lambda tree: tree["record_file"].update(records=["<u4"] * 3), "at least 4"),
        (lambda tree: tree["record_file"].update(records=["object"] * 4), "Input should be"),
        (lambda tree: tree["record_file"].update(tails=["<u4"]), "tails has 1 columns"),
        (lambda tree: tree["record_file"].update(more=1), "more"),
        (lambda tree: tree.update(record_file=None), "record_file"),
        (lambda tree: tree.pop("record_file"), "no window"),
        (lambda tree: tree["shards"][0].update(records=[[0, 1, 1, 1]]), "which has a record_file"),
    ],
)
def test_an_index_that_does_not_fit_its_file(both, edit, said):
    """Sealed, as one would write it who knows how."""
    _, columns = both
    edit_index(columns, edit)
    with pytest.raises(ValueError, match=said):
        read_index(str(columns))
    assert not verify(str(columns)).ok


def test_a_smaller_folder_written_over_it(both, monkeypatch):
    _, columns = both
    monkeypatch.setattr(index_module, "RECORDS_IN_JSON", 10**6)
    write_packed(str(columns), make_blocks(make_windows(8)), overwrite=True)
    assert not (columns / "records.bin").exists()
    assert read_index(str(columns)).windows == 8


def test_columns_are_as_small_as_their_numbers():
    rows = tuple(RecordEntry(100 * n, 100, n % 3 + 1, 2**32 - 1 - n) for n in range(50))
    packed = pack_records([(rows, ())])
    assert packed.entry.records == ("<u2", "|u1", "|u1", "<u4")
    records = packed.next_records()
    assert tuple(records) == rows
    assert records[3] == rows[3]
    assert records[10:12] == rows[10:12]
    assert records != rows[:-1]
    assert records != (*rows[:-1], rows[0])


@pytest.mark.parametrize("kind", [tuple, "columns"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0, 9, 1, 0), (8, 9, 1, 0)], r"records\[1\] .* is not at byte 9"),
        ([(1, 9, 1, 0)], r"records\[0\] .* is not at byte 0"),
        ([(0, 0, 1, 0)], r"records\[0\]"),
        ([(0, 9, 0, 0)], r"records\[0\]"),
        ([(0, 2**63 - 1, 1, 0), (2**63 - 1, 2**63 - 1, 1, 0)], r"records\[1\]"),
        ([(0, 60, 1, 0), (60, 60, 1, 0)], "end at byte 120, beyond size 100"),
    ],
)
def test_records_out_of_place(kind, rows, said):
    entries = tuple(RecordEntry(*row) for row in rows)
    given = Columns(RecordEntry, columns_of(entries, 4)) if kind == "columns" else entries
    with pytest.raises(ValueError, match=said):
        check_positions(given, 100)


def test_numbers_beyond_int64_are_refused():
    columns = [np.array([value], dtype="<u8") for value in (0, 2**64 - 1, 1, 0)]
    with pytest.raises(ValueError, match=r"records\[0\]"):
        check_positions(Columns(RecordEntry, columns), 2**62)


def test_sizes_are_not_looked_at_where_another_rank_does(both: tuple[Path, Path]):
    _, columns = both
    next(columns.glob("*.tar")).unlink()
    shard_set = ShardSet.open(str(columns), sizes=False)
    with pytest.raises(FileNotFoundError, match="is missing"):
        shard_set.check_sizes()
    with pytest.raises(FileNotFoundError, match="is missing"):
        ShardSet.open(str(columns))
