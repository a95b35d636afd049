"""The order of an epoch's windows: a pure function of the index, the seed and the epoch.

``MixedOrder`` mixes all windows. ``session_order`` keeps windows of one session together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Windows, each by the number of its record and its row in it: two arrays ``(n,)`` int64."""

    records: np.ndarray
    rows: np.ndarray

    def take(self, which: slice | np.ndarray) -> Rows:
        """Some of the windows."""
        return Rows(self.records[which], self.rows[which])


class EpochOrder(ABC):
    """An order of windows for every epoch.

    An epoch permutes all records and cuts them into groups of ``blocks`` records (a record holds
    one block of windows). Groups follow each other, and windows are shuffled within a group. So a
    reader holds the records of only one or two groups in memory.

    windows_per_record: of all records, ``(R,)`` int64. windows: of an epoch, at most their sum.
    ValueError where there are no records, or one without windows.
    """

    windows: int

    def __init__(
        self, windows_per_record: Sequence[int] | np.ndarray, blocks: int, seed: int
    ) -> None:
        self.windows_per_record = np.asarray(windows_per_record, dtype=np.int64)
        if not self.windows_per_record.size or self.windows_per_record.min() < 1:
            raise ValueError("a schedule needs records, each of at least one window")
        self.blocks = blocks
        self._seed = seed
        # Consecutive batches need the same epoch and groups, so these are cached.
        self._records = lru_cache(maxsize=2)(self._permute_records)
        self._starts = lru_cache(maxsize=2)(self._group_starts)
        self._rows = lru_cache(maxsize=4)(self._group_rows)

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Windows ``start`` to ``stop`` of an epoch, in order; none twice in an epoch."""
        starts = self._starts(epoch)
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left"))
        joined = join([self._rows(epoch, group) for group in range(first, last)])
        return joined.take(slice(start - starts[first], stop - starts[first]))

    def _permute_records(self, epoch: int) -> np.ndarray:
        return permutation(len(self.windows_per_record), self._seed, epoch)

    def _group_records(self, epoch: int, group: int) -> np.ndarray:
        """The records of a group."""
        return self._records(epoch)[group * self.blocks : (group + 1) * self.blocks]

    def _group_ends(self, epoch: int) -> np.ndarray:
        """The position after each group's last window, counted over whole records."""
        sizes = self.windows_per_record[self._records(epoch)]
        return np.cumsum(np.add.reduceat(sizes, np.arange(0, len(sizes), self.blocks)))

    @abstractmethod
    def _group_starts(self, epoch: int) -> np.ndarray:
        """The position of each group's first window in the epoch, and the end of the epoch."""

    @abstractmethod
    def _group_rows(self, epoch: int, group: int) -> Rows:
        """The windows of a group, in the order of the epoch."""


class MixedOrder(EpochOrder):
    """All windows of an epoch; those of a group are permuted together.

    (Packed shards of order ``shuffled`` are also shuffled globally when they are written.)
    """

    def __init__(
        self, windows_per_record: Sequence[int] | np.ndarray, blocks: int, seed: int
    ) -> None:
        super().__init__(windows_per_record, blocks, seed)
        self.windows = int(self.windows_per_record.sum())

    def _group_starts(self, epoch: int) -> np.ndarray:
        return np.concatenate([[0], self._group_ends(epoch)])

    def _group_rows(self, epoch: int, group: int) -> Rows:
        records = self._group_records(epoch, group)
        windows = rows_of(records, self.windows_per_record[records])
        # Groups count from 1: SeedSequence ignores a trailing 0, and the key would be the epoch's.
        return windows.take(permutation(len(windows.rows), self._seed, epoch, group + 1))


def rows_of(records: np.ndarray, windows: np.ndarray) -> Rows:
    """All windows of ``records``, which hold ``windows`` each, both ``(r,)`` int64; in order."""
    return Rows(
        records=np.repeat(records, windows),
        rows=np.concatenate([np.arange(count) for count in windows]),
    )


def join(parts: Sequence[Rows]) -> Rows:
    """The windows of all parts, one part after the other; a lone part is not copied."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*map(np.concatenate, zip(*parts, strict=True)))


def permutation(length: int, *key: int) -> np.ndarray:
    """A permutation that ``key`` determines, the same on every machine.

    Equal 64-bit values are sorted by position.
    """
    return np.argsort(random_bits(length, *key), kind="stable")


def random_bits(length: int, *key: int) -> np.ndarray:
    """Random uint64 values that ``key`` determines, the same on every machine.

    They are the raw stream of Philox, which numpy keeps the same in all versions, unlike the
    methods of Generator.
    """
    entropy = [part % 2**64 for part in key]
    return np.random.Philox(np.random.SeedSequence(entropy)).random_raw(length)
