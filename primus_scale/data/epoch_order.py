"""The order of an epoch's windows: a pure function of the index, the seed and the epoch.

``MixedOrder`` mixes all windows. ``session_order`` deals the windows of one session together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np


class Rows(NamedTuple):
    """Windows by record number and row within the record; two arrays ``(B,)`` int64."""

    records: np.ndarray
    rows: np.ndarray

    def take(self, which: slice | np.ndarray) -> Rows:
        """Some of the windows."""
        return Rows(self.records[which], self.rows[which])


class EpochOrder(Protocol):
    """An order of windows for every epoch.

    windows_per_record: of all records, ``(R,)`` int64. windows: of an epoch, at most their sum.
    blocks: records that are in use at once.
    """

    windows_per_record: np.ndarray
    windows: int
    blocks: int

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Windows ``start`` to ``stop`` of an epoch, in order; none twice in an epoch."""


class MixedOrder:
    """All windows of an epoch, mixed within groups of records.

    An epoch takes all records in a permuted order. ``blocks`` consecutive records form a group, and
    the windows of a group are permuted together. So only the records of one or two groups are in
    memory. (Packed shards of order ``shuffled`` are also shuffled globally when they are written.)
    """

    def __init__(
        self, windows_per_record: Sequence[int] | np.ndarray, blocks: int, seed: int
    ) -> None:
        self.windows_per_record = check_records(windows_per_record)
        self.windows = int(self.windows_per_record.sum())
        self.blocks = blocks
        self._seed = seed
        # Consecutive batches need the same epoch and groups, so these are cached.
        self._groups = lru_cache(maxsize=2)(self._make_groups)
        self._group_rows = lru_cache(maxsize=4)(self._make_group_rows)

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """See ``EpochOrder``."""
        starts = self._groups(epoch).starts
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left"))
        joined = join([self._group_rows(epoch, group) for group in range(first, last)])
        return joined.take(slice(start - starts[first], stop - starts[first]))

    def _make_groups(self, epoch: int) -> _Groups:
        records = permutation(len(self.windows_per_record), self._seed, epoch)
        sizes = np.add.reduceat(
            self.windows_per_record[records], np.arange(0, len(records), self.blocks)
        )
        return _Groups(records, np.concatenate([[0], np.cumsum(sizes)]))

    def _make_group_rows(self, epoch: int, group: int) -> Rows:
        first = group * self.blocks
        members = self._groups(epoch).records[first : first + self.blocks]
        sizes = self.windows_per_record[members]
        records = np.repeat(members, sizes)
        rows = np.concatenate([np.arange(size) for size in sizes])
        # Groups count from 1: SeedSequence ignores a trailing 0, and the key would be the epoch's.
        order = permutation(len(records), self._seed, epoch, group + 1)
        return Rows(records[order], rows[order])


class _Groups(NamedTuple):
    """Records of an epoch in order, and the position of each group's first window (and the end)."""

    records: np.ndarray
    starts: np.ndarray


def check_records(windows_per_record: Sequence[int] | np.ndarray) -> np.ndarray:
    """The counts as int64; ValueError where there is no record, or one without windows."""
    windows = np.asarray(windows_per_record, dtype=np.int64)
    if not windows.size or windows.min() < 1:
        raise ValueError("a schedule needs records, each of at least one window")
    return windows


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
