"""The order of data: which windows form global batch ``step`` of a run.

It is a pure function of the index, the seed and the step. It does not depend on ranks or threads.
So runs on any number of ranks see the same global batches, and a run resumes at any step without
reading the batches before it again.

**Epochs.** An epoch holds every window once. (The order of sessions leaves out a few, others in
every epoch.) Epochs follow each other without end. With ``N`` windows in a global batch, batch
``s`` (from 0) is windows ``s * N`` to ``(s + 1) * N`` of this sequence. So all batches are full,
and every step has the same weight. A batch may hold the end of one epoch and the beginning of the
next.

**No window twice in a batch.** The objective would treat the second copy as a negative of the
first. A batch that holds the end of an epoch could get the same window again from the beginning of
the next one. Such a window is moved behind the windows that fill the batch. This changes the order
among the first ``N`` windows of an epoch, its *head*. It needs at least ``N`` windows; fewer are
refused.

**Rows of ranks.** The loss does not depend on the order within a batch. So a batch is sorted by
record, and ranks take consecutive rows: a rank reads about its share of a group's records, not all
of them.
"""

from __future__ import annotations

import numpy as np

from primus_scale.config import DataConfig, NearConfig
from primus_scale.counted import counted
from primus_scale.data.epoch_order import EpochOrder, MixedOrder, Rows, join
from primus_scale.data.session_order import (
    SessionOrder,
    SessionUnits,
    check_sessions,
    describe_sessions,
)
from primus_scale.data.shard_set import ShardSet


def check_enough_windows(windows: int, batch: int) -> None:
    """ValueError where there are fewer windows than in a batch."""
    if windows < batch:
        raise ValueError(
            f"train.batch is {batch}, but data.train holds {counted(windows, 'window')}, and a "
            f"batch holds none twice; set train.batch to at most {windows}, or give more data"
        )


def make_schedule(
    config: DataConfig, near: NearConfig, shard_set: ShardSet, batch: int, seed: int
) -> Schedule:
    """The schedule of a run: of mixed windows, or of sessions with ``data.session_windows``.

    ValueError as ``Schedule``, ``ShardSet.session_parts`` and ``SessionOrder``.
    """
    if config.session_windows is None:
        mixed = MixedOrder(shard_set.windows_per_record, config.shuffle_blocks, seed)
        return Schedule(mixed, batch)
    units = SessionUnits(config.session_windows, near.min_s, near.max_s)
    order = SessionOrder(shard_set.session_parts, units, config.shuffle_blocks, seed)
    return Schedule(order, batch)


def check_order(config: DataConfig, near: NearConfig, shard_set: ShardSet, batch: int) -> None:
    """ValueError where the data do not suit the batches.

    As ``check_enough_windows``, ``make_schedule`` and ``check_sessions``.
    """
    check_enough_windows(shard_set.windows, batch)
    if config.session_windows is not None:
        make_schedule(config, near, shard_set, batch, seed=0)
        check_sessions(shard_set.session_parts, near)


def describe_order(config: DataConfig, shard_set: ShardSet, batch: int) -> str:
    """A line on what batches consist of, with advice where the data hardly suit them."""
    if config.session_windows is not None:
        return describe_sessions(shard_set.session_parts, config.session_windows, batch)
    blocks = min(config.shuffle_blocks, len(shard_set))
    line = f"batches of windows from {blocks} of {len(shard_set)} records"
    if shard_set.by_sessions and blocks < len(shard_set):
        line += (
            ", which hold whole sessions: so batches mix few sessions; embed the windows again "
            "with --order shuffled, or raise data.shuffle_blocks, or set data.session_windows"
        )
    return line


class Schedule:
    """Global batches of ``batch`` windows from epochs in the order ``order``.

    ValueError as ``check_enough_windows``.
    """

    def __init__(self, order: EpochOrder, batch: int) -> None:
        check_enough_windows(order.windows, batch)
        self._order = order
        self._batch = batch
        windows = order.windows_per_record
        self._first_numbers = np.cumsum(windows) - windows
        self._heads: dict[int, Rows] = {}  # by epoch: of the newest epoch and the one before

    @property
    def blocks(self) -> int:
        """Records that are in use at once."""
        return self._order.blocks

    def batch_rows(self, step: int) -> Rows:
        """The windows of global batch ``step`` (from 0), by record and row."""
        assert step >= 0
        epoch, start = divmod(step * self._batch, self._order.windows)
        stop = start + self._batch
        chosen = self._epoch_rows(epoch, start, min(stop, self._order.windows))
        if stop > self._order.windows:
            chosen = join([chosen, self._epoch_rows(epoch + 1, 0, stop - self._order.windows)])
        return chosen.take(np.argsort(self._numbers(chosen)))

    def _epoch_rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Windows ``start`` to ``stop`` of an epoch, in order."""
        parts = []
        if start < self._batch:
            parts.append(self._head(epoch).take(slice(start, stop)))
        if stop > self._batch:
            parts.append(self._order.rows(epoch, max(start, self._batch), stop))
        return join(parts)

    def _head(self, epoch: int) -> Rows:
        """The first ``batch`` windows of an epoch, in order.

        A head depends on the end of the epoch before. If an epoch has fewer than two batches, its
        end may lie in its own head, so that head must be made first. This may go back to the last
        epoch that begins with a batch: at most ``batch`` epochs.
        """
        first = epoch
        while first not in self._heads and self._order.windows - self._carried(first) < self._batch:
            first -= 1
        for each in range(first, epoch + 1):
            if each not in self._heads:
                head = self._make_head(each)
                self._heads = {k: self._heads[k] for k in self._heads.keys() & {each - 1}}
                self._heads[each] = head
        return self._heads[epoch]

    def _make_head(self, epoch: int) -> Rows:
        """The head of an epoch: repeated windows are moved behind those that fill the batch."""
        drawn = self._order.rows(epoch, 0, self._batch)
        carried = self._carried(epoch)
        if not carried:
            return drawn
        in_batch = self._epoch_rows(epoch - 1, self._order.windows - carried, self._order.windows)
        repeated = np.isin(self._numbers(drawn), self._numbers(in_batch))
        # At most ``carried`` windows are repeated, so enough others fill the batch.
        first = np.flatnonzero(~repeated)[: self._batch - carried]
        others = np.setdiff1d(np.arange(self._batch), first)
        return drawn.take(np.concatenate([first, others]))

    def _carried(self, epoch: int) -> int:
        """How many windows of the epoch before are in the first batch of ``epoch``."""
        return epoch * self._order.windows % self._batch

    def _numbers(self, rows: Rows) -> np.ndarray:
        """The number of each window, counted over all records: equal numbers, equal windows."""
        return self._first_numbers[rows.records] + rows.rows
