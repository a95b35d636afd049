"""The order of data: which windows form global batch ``step`` of a run.

It is a pure function of the index, the seed and the step. It knows nothing of ranks or threads, so
that runs on any number of ranks see the same global batches, and a run resumes at any step without
replaying those before.

The epochs follow each other without end: global batch ``s`` is windows ``s * B`` up to
``(s + 1) * B`` of the endless sequence of epochs, each of which holds every window once. All
batches are full, so every step weighs the same; one batch may hold the end of an epoch and the
beginning of the next.

An epoch goes through all records in a permuted order. Consecutive records are grouped,
``shuffle_blocks`` at a time, and the windows of a group are permuted together. So windows are mixed
well enough while no more than the records of one or two groups are needed at a time (windows are
also shuffled globally when packed shards are written).

No window comes twice in one batch: the objective would take the second for a negative of the
first. Where a batch holds the end of an epoch, a window of that end would at times stand in the
same batch again, as one of the first of the next epoch. It then gives its place to the next window
that is not in the batch, and comes as soon as the batch is full: a change of order among the
first ``B`` windows of an epoch. It needs at least ``B`` windows, and fewer are refused.

Within a batch, where order means nothing to the objective, windows stand by record. Ranks take
consecutive rows of it, so a rank reads its share of a group's records and one or two more,
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

    def take(self, which: slice | np.ndarray) -> Rows:
        """Some of the windows."""
        return Rows(self.records[which], self.rows[which])


class _EpochOrder(NamedTuple):
    """Records of an epoch in order, and the first window of each group (and the end)."""

    records: np.ndarray
    group_starts: np.ndarray


def check_enough(windows: int, batch: int) -> None:
    """ValueError where there are fewer windows than a batch holds."""
    if windows < batch:
        raise ValueError(
            f"train.batch is {batch}, but data.train holds {windows} windows, and a batch holds "
            f"none twice; set train.batch to at most {windows}, or give more data"
        )


class Schedule:
    """Batches of ``batch`` windows from records of ``windows_per_record`` windows.

    ValueError as ``check_enough``.
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
        check_enough(self.windows, batch)
        self._batch = batch
        self._shuffle_blocks = shuffle_blocks
        self._seed = seed
        # Batches follow each other: the order of an epoch and its current groups are kept.
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)
        self._group_rows = lru_cache(maxsize=4)(self._make_group_rows)
        self._heads: dict[int, Rows] = {}  # by epoch, of the last one and the one before

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

        They depend on the end of the epoch before, which lies within that epoch's own first
        ``batch`` windows only where an epoch has fewer than two batches. Such heads depend on each
        other, back to an epoch that begins with a batch: at most ``batch`` of them.
        """
        first = epoch
        while first not in self._heads and self.windows - self._begun(first) < self._batch:
            first -= 1
        for each in range(first, epoch + 1):
            if each not in self._heads:
                head = self._make_head(each)
                self._heads = {k: self._heads[k] for k in self._heads.keys() & {each - 1}}
                self._heads[each] = head
        return self._heads[epoch]

    def _make_head(self, epoch: int) -> Rows:
        """The windows drawn for the head of an epoch, those that must wait behind the others."""
        drawn = self._drawn_rows(epoch, 0, self._batch)
        begun = self._begun(epoch)
        if not begun:
            return drawn
        batch_mates = self._epoch_rows(epoch - 1, self.windows - begun, self.windows)
        waiting = np.isin(self._numbers(drawn), self._numbers(batch_mates))
        # At most ``begun`` are waiting, so enough are not.
        first = np.flatnonzero(~waiting)[: self._batch - begun]
        others = np.setdiff1d(np.arange(self._batch), first)
        return drawn.take(np.concatenate([first, others]))

    def _begun(self, epoch: int) -> int:
        """Windows of the epoch before that stand in one batch with the first of ``epoch``."""
        return epoch * self.windows % self._batch

    def _numbers(self, rows: Rows) -> np.ndarray:
        """Number of each window among all."""
        return (np.cumsum(self._windows) - self._windows)[rows.records] + rows.rows

    def _drawn_rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Windows ``start`` to ``stop`` of an epoch as drawn, without regard to batches."""
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
        # Counted from 1: SeedSequence takes a trailing 0 for nothing, which is the epoch's key.
        order = _permutation(len(records), self._seed, epoch, group + 1)
        return Rows(records[order], rows[order])


def _join(parts: Sequence[Rows]) -> Rows:
    return Rows(*map(np.concatenate, zip(*parts, strict=True)))


def _permutation(length: int, *key: int) -> np.ndarray:
    """A permutation drawn by ``key``, the same on every machine.

    The raw stream of Philox is what numpy keeps stable over its versions, unlike the methods of
    its Generator; ties among 64-bit values are broken by position.
    """
    entropy = [part % 2**64 for part in key]
    bits = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(length)
    return np.argsort(bits, kind="stable")
