"""The rows of a batch while records are copied into them, and memory that batches use again.

A record is read into memory of the thread that reads it, and its windows are copied at once to
their rows in all batches that need them. So each byte is moved twice, and no memory is fresh: the
system clears a fresh page at its first access, which takes longer than to fill it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import Block
from primus_scale.sample import Batch

_IDS = ("uid", "recording", "session", "label")


class BatchFormat(NamedTuple):
    """What batches hold: shape ``(C, T)`` of a window, its seconds, teachers by modality.

    live: frames and texts as well.
    """

    shape: tuple[int, int]
    span_s: float
    teachers: Mapping[str, TeacherSpace]
    live: bool


class BatchRows:
    """Memory for a batch of ``count`` windows; every row must be filled."""

    def __init__(self, form: BatchFormat, count: int) -> None:
        self._form = form
        self._imu = np.empty((count, *form.shape), dtype=np.float32)
        self._embeddings = {
            modality: np.empty((count, teacher.dim), dtype=np.float16)
            for modality, teacher in form.teachers.items()
        }
        # Ids, start times (their bits) and presence, which one call copies.
        self._columns = np.empty((count, len(_IDS) + 1 + len(form.teachers)), dtype=np.int64)
        self._frames: list[tuple[bytes, ...]] = [()] * count
        self._texts: list[tuple[str, ...]] = [()] * count
        self._unused = self._holders()

    def __len__(self) -> int:
        return len(self._imu)

    def in_use(self) -> bool:
        """Whether a tensor of ``batch`` still exists, or a part of one."""
        return self._holders() != self._unused

    def _holders(self) -> list[int]:
        """How many objects refer to each array. The memory of a tensor does, until it is freed."""
        return [sys.getrefcount(array) for array in (self._imu, *self._embeddings.values())]

    def fill(self, at: slice, block: Block, columns: np.ndarray, rows: np.ndarray) -> None:
        """Copy the windows ``rows`` of a block, whose ``columns_of`` are given, to the rows ``at``.

        Several threads may fill different rows.
        """
        # Rows are within the block, which has as many as its index says. To check each again
        # ("raise") would copy through memory of its own.
        np.take(block.imu, rows, axis=0, out=self._imu[at], mode="clip")
        np.take(columns, rows, axis=0, out=self._columns[at], mode="clip")
        for modality, embeddings in self._embeddings.items():
            if modality in block.embeddings:
                source = block.embeddings[modality]
                np.take(source, rows, axis=0, out=embeddings[at], mode="clip")
            else:
                embeddings[at] = 0
        if self._form.live:
            self._frames[at] = [block.frames[row] for row in rows.tolist()]
            self._texts[at] = [block.metas[row].texts for row in rows.tolist()]

    def batch(self) -> Batch:
        """The batch, whose samples and embeddings (float16) lie in this memory."""
        columns = np.ascontiguousarray(self._columns.T)
        ids = dict(zip(_IDS, map(torch.from_numpy, columns), strict=False))
        presence = columns[len(_IDS) + 1 :].astype(np.bool_)
        live = self._form.live
        return Batch(
            imu=torch.from_numpy(self._imu),
            **ids,
            start_s=torch.from_numpy(columns[len(_IDS)].view(np.float64)),
            embeddings={name: torch.from_numpy(e) for name, e in self._embeddings.items()},
            present=dict(zip(self._form.teachers, map(torch.from_numpy, presence), strict=True)),
            frames=list(self._frames) if live else None,
            texts=list(self._texts) if live else None,
            span_s=self._form.span_s,
        )


def columns_of(block: Block, modalities: Iterable[str]) -> np.ndarray:
    """Ids, bits of the start times and presence of a block's windows, ``(N, K)`` int64."""
    columns = [*(getattr(block, name) for name in _IDS), block.start_s.view(np.int64)]
    absent = np.zeros(len(block), dtype=np.int64)
    columns += [block.present.get(modality, absent) for modality in modalities]
    return np.stack(columns, axis=1, dtype=np.int64)


class BatchMemory:
    """Memory of batches that nobody refers to any more, for those that follow.

    At most ``most`` batches are kept. One thread may use it.
    """

    def __init__(self, form: BatchFormat, most: int) -> None:
        self._form = form
        self._most = most
        self._made: list[BatchRows] = []

    def take(self, count: int) -> BatchRows:
        """Memory for ``count`` windows."""
        for number, rows in enumerate(self._made):
            if len(rows) == count and not rows.in_use():
                return self._made.pop(number)
        return BatchRows(self._form, count)

    def give(self, rows: BatchRows) -> None:
        """Keep the memory of a batch that was made, to be taken once the batch is gone."""
        self._made = [*self._made, rows][-self._most :]
