from pathlib import Path

import pytest

from primus_scale.data.index import ShardEntry, parse_shard_entry
from primus_scale.data.members import split_record
from primus_scale.data.record import decode_window, encode_window
from primus_scale.data.record_place import RecordPlace, list_places
from primus_scale.sample import Window
from primus_scale.storage.folder import Folder
from shards.write.copying import ShardCopier, plan_shards
from shards.write.shard_file import ShardRecord, shard_name, window_key, write_shard
from tests.shard_factory import make_windows, write_windows


def write_tars(folder: Path, windows: list[Window], each: int = 10) -> list[ShardEntry]:
    folder.mkdir()
    return [
        write_shard(
            Folder(str(folder)),
            f"part-{start}.tar",
            [
                ShardRecord(window_key(w.meta.uid), encode_window(w))
                for w in windows[start : start + each]
            ],
        )
        for start in range(0, len(windows), each)
    ]


def plan(files: list[ShardEntry], shard_bytes: int) -> list[list[RecordPlace]]:
    places = list_places(files)
    return plan_shards(places, [place.entry.length for place in places], shard_bytes)


def test_every_record_goes_into_one_shard_in_the_order_given(tmp_path: Path) -> None:
    files = write_tars(tmp_path / "parts", make_windows(47))
    shards = plan(files, 20_000)
    assert len(shards) > 3
    assert [place for shard in shards for place in shard] == list_places(files)


def test_shards_are_full_but_for_the_last(tmp_path: Path) -> None:
    files = write_tars(tmp_path / "parts", make_windows(47))
    sizes = [sum(place.entry.length for place in shard) for shard in plan(files, 20_000)]
    longest = max(record.length for file in files for record in file.records)
    assert len(sizes) > 3
    assert all(20_000 <= size < 20_000 + longest for size in sizes[:-1])


def test_copied_shards_are_those_that_the_writer_would_have_written(tmp_path: Path) -> None:
    windows = make_windows(23)
    parts, out = tmp_path / "parts", tmp_path / "out"
    (shard,) = plan(write_tars(parts, windows), 2**30)
    out.mkdir()
    made = ShardCopier(str(parts), str(out))((shard_name(0), shard))
    entry = parse_shard_entry(made["file"])
    data = (out / entry.name).read_bytes()

    order = [
        decode_window(split_record(data[r.offset : r.offset + r.length])[1]).meta.uid
        for r in entry.records
    ]
    assert order == [window.meta.uid for window in windows]
    index = write_windows(str(tmp_path / "direct"), windows)
    assert index.shards == (entry,)
    assert (tmp_path / "direct" / entry.name).read_bytes() == data


def test_a_part_that_was_cut_is_an_error(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    (shard,) = plan(write_tars(parts, make_windows(5)), 2**30)
    whole = (parts / "part-0.tar").read_bytes()
    (parts / "part-0.tar").write_bytes(whole[:2000])
    with pytest.raises(ValueError, match=r"part-0.tar: record 0 .* is not what was written"):
        ShardCopier(str(parts), str(tmp_path))((shard_name(0), shard))
    assert not list(tmp_path.glob("*shard*")), "no half-written shard is left"
