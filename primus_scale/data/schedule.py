"""The order of data: which windows form global batch ``step`` of a run.

It is a pure function of the index, the seed and the step. It does not depend on ranks or threads.
So runs on any number of ranks see the same global batches, and a run resumes at any step without
reading the batches before it again.

**Epochs.** An epoch holds every window once, and epochs follow each other without end. With ``B``
windows in a batch, global batch ``s`` is windows ``s * B`` to ``(s + 1) * B`` of this sequence. So
all batches are full, every step has the same weight, and a batch may hold the end of one epoch and
the beginning of the next.

**Order.** An epoch takes all records in a permuted order. ``shuffle_blocks`` consecutive records
form a group, and the windows of a group are permuted together. So windows are mixed, but only the
records of one or two groups are in memory. (``shards embed --order shuffled`` also shuffles windows
globally when packed shards are written.)

**No window twice in a batch.** The objective would treat the second copy as a negative of the
first. A batch that holds the end of an epoch could get the same window again from the beginning of
the next one. Such a window is moved behind the windows that fill the batch. This changes the order
among the first ``B`` windows of an epoch, its *head*. It needs at least ``B`` windows; fewer are
refused.

**Rows of ranks.** The objective does not depend on the order within a batch, so a batch is sorted
by record. Ranks take consecutive rows, so a rank reads its share of a group's records and one or
two more, not all of them.
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

    def take(self, which: slice | np.ndarray) -> Rows:
        """Some of the windows."""
        return Rows(self.records[which], self.rows[which])


class _EpochOrder(NamedTuple):
    """Records of an epoch in order, and the position of each group's first window (and the end)."""

    records: np.ndarray
    group_starts: np.ndarray


def check_enough_windows(windows: int, batch: int) -> None:
    """ValueError where there are fewer windows than in a batch."""
    if windows < batch:
        raise ValueError(
            f"train.batch is {batch}, but data.train holds {windows} windows, and a batch holds "
            f"none twice; set train.batch to at most {windows}, or give more data"
        )


class Schedule:
    """Batches of ``batch`` windows from records of ``windows_per_record`` windows.

    ValueError as ``check_enough_windows``.
    """

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
        self.windows = int(self._windows.sum())
        check_enough_windows(self.windows, batch)
        self._batch = batch
        self._shuffle_blocks = shuffle_blocks
        self._seed = seed
        # Consecutive batches need the same epoch and groups, so these are cached.
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)
        self._group_rows = lru_cache(maxsize=4)(self._make_group_rows)
        self._heads: dict[int, Rows] = {}  # by epoch: of the newest epoch and the one before

    def batch_rows(self, step: int) -> Rows:
        """The windows of global batch ``step`` (from 0), by record and row."""
        assert step >= 0
        epoch, start = divmod(step * self._batch, self.windows)
        stop = start + self._batch
        chosen = self._epoch_rows(epoch, start, min(stop, self.windows))
        if stop > self.windows:
            chosen = _join([chosen, self._epoch_rows(epoch + 1, 0, stop - self.windows)])
        return chosen.take(np.lexsort((chosen.rows, chosen.records)))

    def _epoch_rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Windows ``start`` to ``stop`` of an epoch, in order."""
        parts = []
        if start < self._batch:
            parts.append(self._head(epoch).take(slice(start, stop)))
        if stop > self._batch:
            parts.append(self._drawn_rows(epoch, max(start, self._batch), stop))
        return _join(parts)

    def _head(self, epoch: int) -> Rows:
        """The first ``batch`` windows of an epoch, in order.

        A head depends on the end of the epoch before. Where an epoch has fewer than two batches,
        that end may lie in the head of that epoch, which then must be made first, and so on, back
        to an epoch that begins with a batch: at most ``batch`` epochs.
        """
        first = epoch
        while first not in self._heads and self.windows - self._carried(first) < self._batch:
            first -= 1
        for each in range(first, epoch + 1):
            if each not in self._heads:
                head = self._make_head(each)
                self._heads = {k: self._heads[k] for k in self._heads.keys() & {each - 1}}
                self._heads[each] = head
        return self._heads[epoch]

    def _make_head(self, epoch: int) -> Rows:
        """The head of an epoch: repeated windows are moved behind those that fill the batch."""
        drawn = self._drawn_rows(epoch, 0, self._batch)
        carried = self._carried(epoch)
        if not carried:
            return drawn
        in_batch = self._epoch_rows(epoch - 1, self.windows - carried, self.windows)
        repeated = np.isin(self._numbers(drawn), self._numbers(in_batch))
        # At most ``carried`` windows are repeated, so enough others fill the batch.
        first = np.flatnonzero(~repeated)[: self._batch - carried]
        others = np.setdiff1d(np.arange(self._batch), first)
        return drawn.take(np.concatenate([first, others]))

    def _carried(self, epoch: int) -> int:
        """How many windows of the epoch before are in the first batch of ``epoch``."""
        return epoch * self.windows % self._batch

    def _numbers(self, rows: Rows) -> np.ndarray:
        """The number of each window among all windows of the data."""
        return (np.cumsum(self._windows) - self._windows)[rows.records] + rows.rows

    def _drawn_rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Windows ``start`` to ``stop`` of an epoch in permuted order, before heads are changed."""
        group_starts = self._epoch_order(epoch).group_starts
        first = int(np.searchsorted(group_starts, start, side="right")) - 1
        last = int(np.searchsorted(group_starts, stop, side="left"))
        groups = _join([self._group_rows(epoch, group) for group in range(first, last)])
        return groups.take(slice(start - group_starts[first], stop - group_starts[first]))

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
        # Groups count from 1: SeedSequence ignores a trailing 0, and the key would be the epoch's.
        order = _permutation(len(records), self._seed, epoch, group + 1)
        return Rows(records[order], rows[order])


def _join(parts: Sequence[Rows]) -> Rows:
    return Rows(*map(np.concatenate, zip(*parts, strict=True)))


def _permutation(length: int, *key: int) -> np.ndarray:
    """A permutation that ``key`` determines, the same on every machine.

    It sorts the raw stream of Philox, which numpy keeps the same in all versions, unlike the
    methods of Generator. Equal 64-bit values are sorted by position.
    """
    entropy = [part % 2**64 for part in key]
    bits = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(length)
    return np.argsort(bits, kind="stable")
