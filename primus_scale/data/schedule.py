"""The order of data: which windows form global batch ``step`` of epoch ``epoch``.

It is a pure function of the index, the seed, the epoch and the step. It knows nothing of ranks
or threads, so that runs on any number of ranks see the same global batches, and a run resumes at
any step without replaying those before.

An epoch goes through all records in a permuted order. Consecutive records are grouped,
``shuffle_blocks`` at a time, and the windows of a group are permuted together; batches are cut
from the resulting sequence. So every window comes once an epoch, mixed well enough while no more
than the records of one or two groups are needed at a time (windows are also shuffled globally
when packed shards are written).

Within a batch, where order means nothing to the objective, windows stand by record. Ranks take
consecutive rows of it, so a rank reads its share of a group's records and one or two beside it,
rather than all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Windows by record number and row within the record; two arrays ``(B,)`` int64."""

    records: np.ndarray
    rows: np.ndarray


class _EpochOrder(NamedTuple):
    """Records of an epoch in order, and the first window of each group (and the end)."""

    records: np.ndarray
    group_starts: np.ndarray


class Schedule:
    """Batches of ``batch`` windows from records of ``windows_per_record`` windows."""

    def __init__(
        self,
        windows_per_record: Sequence[int] | np.ndarray,
        batch: int,
        shuffle_blocks: int,
        seed: int,
    ) -> None:
        self._windows = np.asarray(windows_per_record, dtype=np.int64)
        if not self._windows.size or self._windows.min() < 1:
            raise ValueError("a schedule needs records, each of at least one window")
        self._batch = batch
        self._shuffle_blocks = shuffle_blocks
        self._seed = seed
        self.windows = int(self._windows.sum())
        # Batches follow each other: the order of an epoch and its current groups are kept.
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)
        self._group_rows = lru_cache(maxsize=4)(self._make_group_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one is shorter where the windows do not divide."""
        return -(-self.windows // self._batch)

    def locate(self, global_step: int) -> tuple[int, int]:
        """Epoch, and step within it, of a step counted from the start of the run."""
        return divmod(global_step, self.steps_per_epoch)

    def batch_rows(self, epoch: int, step: int) -> Rows:
        """The windows of one global batch, by record and row: ``batch``, fewer in the last one."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step {step} is not within the {self.steps_per_epoch} of an epoch")
        start = step * self._batch
        stop = min(start + self._batch, self.windows)
        group_starts = self._epoch_order(epoch).group_starts
        first = int(np.searchsorted(group_starts, start, side="right")) - 1
        last = int(np.searchsorted(group_starts, stop, side="left"))
        groups = [self._group_rows(epoch, group) for group in range(first, last)]
        cut = slice(start - group_starts[first], stop - group_starts[first])
        records = np.concatenate([group.records for group in groups])[cut]
        rows = np.concatenate([group.rows for group in groups])[cut]
        by_record = np.lexsort((rows, records))
        return Rows(records[by_record], rows[by_record])

    def _make_epoch_order(self, epoch: int) -> _EpochOrder:
        records = _permutation(len(self._windows), self._seed, epoch)
        group_sizes = np.add.reduceat(
            self._windows[records], np.arange(0, len(records), self._shuffle_blocks)
        )
        return _EpochOrder(records, np.concatenate([[0], np.cumsum(group_sizes)]))

    def _make_group_rows(self, epoch: int, group: int) -> Rows:
        first = group * self._shuffle_blocks
        members = self._epoch_order(epoch).records[first : first + self._shuffle_blocks]
        sizes = self._windows[members]
        records = np.repeat(members, sizes)
        rows = np.concatenate([np.arange(size) for size in sizes])
        # Counted from 1: SeedSequence takes a trailing 0 for nothing, which is the epoch's key.
        order = _permutation(len(records), self._seed, epoch, group + 1)
        return Rows(records[order], rows[order])


def _permutation(length: int, *key: int) -> np.ndarray:
    """A permutation drawn by ``key``, the same on every machine.

    The raw stream of Philox is what numpy keeps stable over its versions, unlike the methods of
    its Generator; ties among 64-bit values are broken by position.
    """
    entropy = [part % 2**64 for part in key]
    bits = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(length)
    return np.argsort(bits, kind="stable")
