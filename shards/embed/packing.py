"""Packed shards from embedded windows: blocks of windows, in an order that is planned before.

The block and shard of each window are planned before anything is read (``shards.embed.order``). So
any number of workers write shards in any order, with the same bytes. A worker keeps one block in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from primus_scale.data.index import ShardIndex, TeacherSpace
from primus_scale.data.record import Block, make_block
from primus_scale.data.record_place import RecordPlace
from primus_scale.storage.folder import Folder
from shards.embed.group_embedder import decode_row
from shards.write.checks import check_packed_block
from shards.write.copying import RecordReader, plan_shards
from shards.write.shard_file import ShardRecord, block_record, shard_name, write_shard

SHARD_BYTES = 64 * 2**20  # of samples and embeddings, reached by the last block of a shard


class PackRequest(NamedTuple):
    """A shard to be written: its name, the number of its first block, the windows of each block."""

    name: str
    first: int
    blocks: Sequence[Sequence[RecordPlace]]

    @property
    def windows(self) -> int:
        """How many windows it holds."""
        return sum(map(len, self.blocks))


def plan_packed_shards(
    places: Sequence[RecordPlace], blocks: Sequence[np.ndarray], row_bytes: int
) -> list[PackRequest]:
    """The shards of ``blocks``, in that order; a block has the numbers of its windows' places."""
    sizes = [len(block) * row_bytes for block in blocks]
    requests: list[PackRequest] = []
    first = 0
    for shard in plan_shards(blocks, sizes, SHARD_BYTES):
        windows = [[places[number] for number in block] for block in shard]
        requests.append(PackRequest(shard_name(len(requests)), first, windows))
        first += len(shard)
    return requests


def count_row_bytes(index: ShardIndex, spaces: Mapping[str, TeacherSpace]) -> int:
    """Bytes of a window's float32 samples and float16 embeddings."""
    return 4 * len(index.channels) * index.window_samples + sum(2 * s.dim for s in spaces.values())


class ShardPacker:
    """Writes packed shards of windows in the folder at ``work_url`` to the folder at ``out_url``.

    sessions: the index says which parts of sessions a block consists of. labels: class names that
    label ids index. spaces: by modality.
    """

    def __init__(
        self,
        work_url: str,
        out_url: str,
        sessions: bool,
        labels: Sequence[str],
        spaces: Mapping[str, TeacherSpace],
    ) -> None:
        self._reader = RecordReader(work_url)
        self._out = Folder(out_url)
        self._sessions = sessions
        self._labels = labels
        self._spaces = spaces

    def __call__(self, request: PackRequest) -> dict[str, Any]:
        """Write a shard; its entry as JSON, ``file``."""
        return {"file": asdict(write_shard(self._out, request.name, self._records(request)))}

    def _records(self, request: PackRequest) -> Iterator[ShardRecord]:
        for number, places in enumerate(request.blocks, request.first):
            block = self._make(places)
            check_packed_block(block, self._spaces, self._labels)
            yield block_record(number, block, sessions=self._sessions)

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
