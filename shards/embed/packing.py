"""Packed shards from embedded windows: blocks of windows, in an order that is planned before.

The block and shard of each window are planned before anything is read. So any number of workers
write shards in any order, with the same bytes. A worker keeps one block in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from primus_scale.data.index import ShardIndex, TeacherSpace
from primus_scale.data.record import Block, make_block
from primus_scale.data.shard_set import RecordPlace
from primus_scale.storage.folder import Folder
from shards.embed.group_embedder import decode_row
from shards.write.checks import check_block
from shards.write.copying import RecordReader
from shards.write.writer import ShardRecord, block_record, write_shard

SHARD_BYTES = 64 * 2**20  # of samples and embeddings, reached by the last block of a shard


def plan_packed_shards(
    places: Sequence[RecordPlace], block: int, row_bytes: int
) -> list[list[RecordPlace]]:
    """The windows at ``places``, in that order, in shards of whole blocks."""
    windows = block * -(-SHARD_BYTES // (block * row_bytes))
    return [list(places[start : start + windows]) for start in range(0, len(places), windows)]


def count_row_bytes(index: ShardIndex, spaces: Mapping[str, TeacherSpace]) -> int:
    """Bytes of a window's float32 samples and float16 embeddings."""
    return 4 * len(index.channels) * index.window_samples + sum(2 * s.dim for s in spaces.values())


class ShardPacker:
    """Writes packed shards of windows in the folder at ``work_url`` to the folder at ``out_url``.

    block: windows a record. labels: class names that label ids index. spaces: by modality.
    """

    def __init__(
        self,
        work_url: str,
        out_url: str,
        block: int,
        labels: Sequence[str],
        spaces: Mapping[str, TeacherSpace],
    ) -> None:
        self._reader = RecordReader(work_url)
        self._out = Folder(out_url)
        self._block = block
        self._labels = labels
        self._spaces = spaces

    def __call__(self, item: tuple[str, int, Sequence[RecordPlace]]) -> dict[str, Any]:
        """Write a shard of a name, whose first block has a number; its entry as JSON, ``file``."""
        name, first, places = item
        return {"file": asdict(write_shard(self._out, name, self._records(first, places)))}

    def _records(self, first: int, places: Sequence[RecordPlace]) -> Iterator[ShardRecord]:
        for number, start in enumerate(range(0, len(places), self._block), first):
            block = self._make(places[start : start + self._block])
            check_block(block, self._spaces, self._labels)
            yield block_record(number, block, sessions=False)

    def _make(self, places: Sequence[RecordPlace]) -> Block:
        rows = [decode_row(members, [*self._spaces]) for members in self._reader.read(places)]
        absent = {m: np.zeros(space.dim, np.float16) for m, space in self._spaces.items()}
        return make_block(
            np.stack([window.imu for window, _ in rows]),
            [window.meta for window, _ in rows],
            self._labels,
            {m: np.stack([row.get(m, absent[m]) for _, row in rows]) for m in self._spaces},
            {m: np.array([m in row for _, row in rows]) for m in self._spaces},
        )
