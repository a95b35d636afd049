"""Records of many tars, read at once, and copied into the shards of a folder.

The shard of each record is planned before anything is copied. So any number of workers write shards
in any order, with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar

from primus_scale.data.record import META_MEMBER
from primus_scale.data.record_place import RecordPlace, read_record
from primus_scale.storage.folder import Folder
from shards.write.shard_file import ShardRecord, window_key, write_shard

READ_AHEAD = 32  # records read at once

Record = TypeVar("Record")


def plan_shards(
    records: Iterable[Record], sizes: Iterable[int], shard_bytes: int
) -> list[list[Record]]:
    """The records, of ``sizes`` bytes, in that order in shards that the last one fills."""
    shards: list[list[Record]] = []
    left = 0
    for record, size in zip(records, sizes, strict=True):
        if left <= 0:
            shards.append([])
            left = shard_bytes
        shards[-1].append(record)
        left -= size
    return shards


class RecordReader:
    """Reads records of the folder at ``url`` by ranges, many at once."""

    def __init__(self, url: str) -> None:
        self._folder = Folder(url)
        # Kept as long as the reader: each thread has its own connection to an object store.
        self._pool = ThreadPoolExecutor(READ_AHEAD)

    def read(self, places: Sequence[RecordPlace]) -> Iterator[dict[str, memoryview]]:
        """Members of the records at ``places``, in that order; raises as ``read_record``."""
        for start in range(0, len(places), READ_AHEAD):
            yield from self._pool.map(self._read, places[start : start + READ_AHEAD])

    def _read(self, place: RecordPlace) -> dict[str, memoryview]:
        return read_record(self._folder, place)


class ShardCopier:
    """Writes shards of records that lie in the folder at ``from_url`` to that at ``to_url``."""

    def __init__(self, from_url: str, to_url: str) -> None:
        self._reader = RecordReader(from_url)
        self._to = Folder(to_url)

    def __call__(self, shard: tuple[str, Sequence[RecordPlace]]) -> dict[str, Any]:
        """Write the shard of this name with the records of these places; ``file`` is its entry."""
        name, places = shard
        return {"file": asdict(write_shard(self._to, name, self._records(places)))}

    def _records(self, places: Sequence[RecordPlace]) -> Iterator[ShardRecord]:
        for views in self._reader.read(places):
            members = {name: bytes(view) for name, view in views.items()}
            yield ShardRecord(window_key(json.loads(members[META_MEMBER])["uid"]), members)
