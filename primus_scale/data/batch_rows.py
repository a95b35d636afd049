"""Memory of batches, which is filled from records and used again for later batches.

A thread reads a record into memory of its own, and copies its windows at once to their rows in all
batches that need them. So each byte is moved only twice. Memory is used again, since the system
clears a fresh page at its first access, which takes longer than to fill the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from primus_scale.data.index import TeacherSpace
from primus_scale.data.record import ID_COLUMNS, Block
from primus_scale.sample import Batch


class BatchFormat(NamedTuple):
    """What the batches of a loader hold.

    shape: ``(C, T)`` of a window. span_s: see ``Batch``. teachers: by modality. live: whether they
    hold frames and texts as well.
    """

    shape: tuple[int, int]
    span_s: float
    teachers: Mapping[str, TeacherSpace]
    live: bool


class BatchRows:
    """Memory for a batch of ``count`` windows. Every row must be filled before ``batch``."""

    def __init__(self, form: BatchFormat, count: int) -> None:
        self._form = form
        self._imu = np.empty((count, *form.shape), dtype=np.float32)
        self._embeddings = {
            modality: np.empty((count, teacher.dim), dtype=np.float16)
            for modality, teacher in form.teachers.items()
        }
        # Ids, start times (their bits) and presence in one array, so that one call copies them.
        self._columns = np.empty((count, len(ID_COLUMNS) + 1 + len(form.teachers)), dtype=np.int64)
        self._frames: list[tuple[bytes, ...]] = [()] * count
        self._texts: list[tuple[str, ...]] = [()] * count
        self._unused = self._holders()

    def __len__(self) -> int:
        return len(self._imu)

    def in_use(self) -> bool:
        """Whether a tensor of ``batch`` still exists, or a part of one."""
        return self._holders() != self._unused

    def _holders(self) -> list[int]:
        """How many objects refer to each array: a tensor in its memory does, until it is freed."""
        return [sys.getrefcount(array) for array in (self._imu, *self._embeddings.values())]

    def fill(self, at: slice, block: Block, columns: np.ndarray, rows: np.ndarray) -> None:
        """Copy the windows ``rows`` of a block to the rows ``at`` of the batch.

        columns: ``block_columns`` of the block. Several threads may fill different rows.
        """
        # The block was checked to have as many rows as its index says. With mode "raise" numpy
        # would check again, and copy through a buffer for that.
        block.imu.take(rows, axis=0, out=self._imu[at], mode="clip")
        columns.take(rows, axis=0, out=self._columns[at], mode="clip")
        for modality, embeddings in self._embeddings.items():
            if modality in block.embeddings:
                block.embeddings[modality].take(rows, axis=0, out=embeddings[at], mode="clip")
            else:
                embeddings[at] = 0
        if self._form.live:
            self._frames[at] = [block.frames[row] for row in rows.tolist()]
            self._texts[at] = [block.metas[row].texts for row in rows.tolist()]

    def batch(self) -> Batch:
        """The batch, whose samples and embeddings (float16) lie in this memory."""
        columns = np.ascontiguousarray(self._columns.T)
        ids = dict(zip(ID_COLUMNS, map(torch.from_numpy, columns), strict=False))
        presence = columns[len(ID_COLUMNS) + 1 :].astype(np.bool_)
        live = self._form.live
        return Batch(
            imu=torch.from_numpy(self._imu),
            **ids,
            start_s=torch.from_numpy(columns[len(ID_COLUMNS)].view(np.float64)),
            embeddings={name: torch.from_numpy(e) for name, e in self._embeddings.items()},
            present=dict(zip(self._form.teachers, map(torch.from_numpy, presence), strict=True)),
            frames=list(self._frames) if live else None,
            texts=list(self._texts) if live else None,
            span_s=self._form.span_s,
        )


def block_columns(block: Block, modalities: Iterable[str]) -> np.ndarray:
    """Ids, bits of the start times and presence of a block's windows, ``(N, K)`` int64."""
    columns = [*(getattr(block, name) for name in ID_COLUMNS), block.start_s.view(np.int64)]
    absent = np.zeros(len(block), dtype=np.int64)
    columns += [block.present.get(modality, absent) for modality in modalities]
    return np.stack(columns, axis=1, dtype=np.int64)


class BatchMemory:
    """Memory of finished batches, which later batches use once nothing refers to it any more.

    The memory of at most ``most`` batches is kept. Only one thread may use it.
    """

    def __init__(self, form: BatchFormat, most: int) -> None:
        self._form = form
        self._most = most
        self._made: list[BatchRows] = []

    def take(self, count: int) -> BatchRows:
        """Memory for a batch of ``count`` windows, used again if possible.

        The last that was given back comes first: it may still be in the processor's cache.
        """
        for number, rows in reversed([*enumerate(self._made)]):
            if len(rows) == count and not rows.in_use():
                return self._made.pop(number)
        return BatchRows(self._form, count)

    def give(self, rows: BatchRows) -> None:
        """Keep the memory of a finished batch, for ``take`` once the batch is gone."""
        self._made = [*self._made, rows][-self._most :]
