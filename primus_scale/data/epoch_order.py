"""The order of an epoch's windows: a pure function of the index, the seed and the epoch.

``MixedOrder`` mixes all windows. ``session_order`` deals the windows of one session together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class EpochOrder(ABC):
    """An order of windows for every epoch.

    An epoch takes all records in a permuted order, in groups of ``blocks`` consecutive records, and
    gives out the windows of one group after the other. So only the records of one or two groups are
    in memory. ValueError where there are no records, or one without windows.

    windows_per_record: of all records, ``(R,)`` int64. windows: of an epoch, at most their sum.
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

    def _members(self, epoch: int, group: int) -> np.ndarray:
        """The records of a group."""
        return self._records(epoch)[group * self.blocks : (group + 1) * self.blocks]

    def _group_ends(self, epoch: int) -> np.ndarray:
        """Windows in the records up to the end of each group."""
        sizes = self.windows_per_record[self._records(epoch)]
        return np.cumsum(np.add.reduceat(sizes, np.arange(0, len(sizes), self.blocks)))

    @abstractmethod
    def _group_starts(self, epoch: int) -> np.ndarray:
        """The position of each group's first window in the epoch, and the end of the epoch."""

    @abstractmethod
    def _group_rows(self, epoch: int, group: int) -> Rows:
        """The windows that a group gives out, in order."""


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
        members = self._members(epoch, group)
        sizes = self.windows_per_record[members]
        records = np.repeat(members, sizes)
        rows = np.concatenate([np.arange(size) for size in sizes])
        # Groups count from 1: SeedSequence ignores a trailing 0, and the key would be the epoch's.
        order = permutation(len(records), self._seed, epoch, group + 1)
        return Rows(records[order], rows[order])


def join(parts: Sequence[Rows]) -> Rows:
    """The windows of all parts, one part after the other."""
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
