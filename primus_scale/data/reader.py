"""From shard folders to batches: schedule -> ranged read -> decode -> batch; threads read ahead.

    shard_set = ShardSet.open(config.data.train)
    with batches(config.data, shard_set, batch=256, seed=0, rank=0, world=1) as loader:
        for batch in loader:
            ...

Each rank reads only the records that hold its rows of a global batch. A loader opens no file and
starts no thread before the first batch is requested, so until then it may be copied by a fork.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
import webdataset

from primus_scale.config import DataConfig, NearConfig
from primus_scale.data.batch_rows import BatchFormat, BatchMemory, BatchRows, block_columns
from primus_scale.data.epoch_order import Rows, rows_of
from primus_scale.data.schedule import make_schedule
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import Batch, WindowMeta
from primus_scale.storage.patience import Patience

T = TypeVar("T")

# From how many records at least some windows of a set are taken: by ``load_windows``, so that they
# are from several folders, and by ``sample_windows``, so that they are of many sessions.
_LEAST_RECORDS = 16
_MANY_RECORDS = 256
_READS_AT_ONCE = 16  # of ``read_ahead``; an object store takes 20 ms for each


def batches(
    config: DataConfig,
    shard_set: ShardSet,
    *,
    batch: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    live: bool = False,
    stop_step: int | None = None,
    near: NearConfig | None = None,
) -> BatchLoader:
    """One rank's share of the global batches ``start_step`` up to ``stop_step`` (None: no end).

    Global batches hold ``batch`` windows, and rank r takes rows ``[r*batch/world,
    (r+1)*batch/world)``. live: batches hold frames and texts instead of embeddings, which needs
    window shards. near: which windows of a session are near, for ``data.session_windows``.
    ValueError where the settings do not fit together, or the windows are fewer than a batch.
    """
    if batch % world:
        raise ValueError(
            f"train.batch {batch} does not divide by the {world} ranks; "
            f"use {batch - batch % world or world} or another multiple of {world}"
        )
    if live and shard_set.index.kind != "window":
        raise ValueError(
            f"{shard_set.folders[0].url} holds packed shards, which have no frames; give window "
            "shards for teachers.mode=live, or use teachers.mode=embedded"
        )
    schedule = make_schedule(config, near or NearConfig(), shard_set, batch, seed)
    own = slice(batch // world * rank, batch // world * (rank + 1))
    steps = itertools.count(start_step) if stop_step is None else range(start_step, stop_step)
    choices = (schedule.batch_rows(step).take(own) for step in steps)
    # A record's windows are in the batches of its group of records; in the order of sessions, some
    # are in those of the next group.
    group = schedule.blocks * int(shard_set.windows_per_record.max())
    return BatchLoader(config, shard_set, choices, live, ahead=-(-2 * group // batch))


class BatchLoader(Iterator[Batch]):
    """An iterator over batches. ``close`` (or leaving a ``with`` block) stops its threads.

    The memory of a batch is used again once nothing refers to its tensors. choices: the windows of
    each batch. ahead: how many batches after the current one get their windows of a record when it
    is read.
    """

    def __init__(
        self,
        config: DataConfig,
        shard_set: ShardSet,
        choices: Iterable[Rows],
        live: bool,
        *,
        ahead: int,
    ) -> None:
        self._patience = config.patience()
        self._shard_set = shard_set.reading_with(self._patience, config.crc)
        self._prefetched = config.prefetch_batches
        self._ahead = ahead
        self._memory = BatchMemory(_batch_format(shard_set, live), ahead + self._prefetched + 2)
        self._readers = ThreadPoolExecutor(config.reader_threads, "primus-read")
        self._waited_s = 0.0
        self._pipeline = iter(
            webdataset.DataPipeline(lambda: choices, self._request, self._prefetch, self._collect)
        )

    @property
    def waited_s(self) -> float:
        """Seconds that the caller has waited for data so far."""
        return self._waited_s

    @property
    def retries(self) -> int:
        """Requests to the storage that were repeated so far."""
        return self._patience.retries

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._pipeline)
        except BaseException:  # the end of the data as well
            self.close()
            raise
        finally:
            self._waited_s += time.perf_counter() - start

    def close(self) -> None:
        """Stop reading ahead and end the threads; may be called twice."""
        self._patience.end()
        self._pipeline.close()
        self._readers.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, choices: Iterable[Rows]) -> Iterator[_Request]:
        """Stage: start the reads that each batch needs; a read serves the batches after it too."""
        waiting: deque[_Request] = deque()
        for chosen in choices:
            waiting.append(_Request(chosen))
            if len(waiting) > self._ahead:
                yield self._start_reads(waiting)
        while waiting:
            yield self._start_reads(waiting)

    def _start_reads(self, waiting: deque[_Request]) -> _Request:
        """Take the first request from ``waiting``, once reads of all its records are started."""
        for record in sorted(waiting[0].places.keys() - waiting[0].reads.keys()):
            needing = [request for request in waiting if request.lacks(record)]
            for request in needing:
                request.memory = request.memory or self._memory.take(request.windows)
            read = self._readers.submit(self._read, record, needing)
            for request in needing:
                request.reads[record] = read
        return waiting.popleft()

    def _read(self, record: int, requests: Sequence[_Request]) -> None:
        """Read a record and copy its windows into the batches that need them."""
        block = self._shard_set.read_block(record)
        columns = block_columns(block, self._shard_set.teachers)
        for request in requests:
            assert request.memory is not None
            at, rows = request.places[record]
            request.memory.fill(at, block, columns, rows)

    def _prefetch(self, requests: Iterator[_Request]) -> Iterator[_Request]:
        """Stage: have some batches read while the caller works on one."""
        waiting: deque[_Request] = deque()
        for request in requests:
            waiting.append(request)
            if len(waiting) > self._prefetched:
                yield waiting.popleft()
        yield from waiting

    def _collect(self, requests: Iterator[_Request]) -> Iterator[Batch]:
        """Stage: wait for each batch in turn."""
        for request in requests:
            for record in sorted(request.reads):
                request.reads[record].result()
            assert request.memory is not None
            memory, request.memory = request.memory, None
            batch = memory.batch()
            self._memory.give(memory)
            yield batch
            del batch  # else its memory would be in use until the next batch is made


class _Request:
    """A batch to be read. chosen: its windows, in order of record.

    places: by record, the rows of the batch and the rows of the record that go there. reads: by
    record, those that were started. memory: of the batch; None before the first read.
    """

    def __init__(self, chosen: Rows) -> None:
        self.windows = len(chosen.rows)
        self.places = dict(_places(chosen))
        self.reads: dict[int, Future[None]] = {}
        self.memory: BatchRows | None = None

    def lacks(self, record: int) -> bool:
        """Whether the batch needs a record that is not being read for it."""
        return record in self.places and record not in self.reads


def _places(chosen: Rows) -> Iterator[tuple[int, tuple[slice, np.ndarray]]]:
    """For each record the rows of the batch, and the rows of the record that go there."""
    steps = np.diff(chosen.records)
    assert (steps >= 0).all(), "windows must be in order of record"
    edges = [0, *(np.flatnonzero(steps) + 1).tolist(), len(chosen.rows)]
    for start, stop in itertools.pairwise(edges):
        yield int(chosen.records[start]), (slice(start, stop), chosen.rows[start:stop])


def _batch_format(shard_set: ShardSet, live: bool) -> BatchFormat:
    index = shard_set.index
    return BatchFormat(
        shape=(len(index.channels), index.window_samples),
        span_s=(index.window_samples - 1) / index.rate_hz,
        teachers=shard_set.teachers,
        live=live,
    )


@dataclass(frozen=True)
class LoadedWindows:
    """Windows of shard folders in memory, in the order of the shards.

    batch: their tensors, N rows (with embeddings from packed shards, with frames and texts from
    window shards). metas: of each window. shard_set: where they are from; it has class names,
    teachers, rate and units.
    """

    batch: Batch
    metas: list[WindowMeta]
    shard_set: ShardSet

    @property
    def imu(self) -> torch.Tensor:
        """Samples ``(N, C, T)`` float32 in SI units."""
        return self.batch.imu

    @property
    def label(self) -> torch.Tensor:
        """Label ids ``(N,)`` int64, indexing ``labels``; NO_LABEL where unknown."""
        return self.batch.label

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.shard_set.labels

    def __len__(self) -> int:
        return len(self.batch)


def load_windows(
    urls: str | Sequence[str],
    patience: Patience | None = None,
    *,
    pictures: bool = True,
    most: int | None = None,
) -> LoadedWindows:
    """Read window shards or packed shards at ``urls`` into memory, at most ``most`` windows.

    If there are more, evenly spaced records are read and evenly spaced windows taken from them.
    Without ``pictures`` windows have no frames, and the bytes of frames are not read if the index
    allows that. Errors as ``ShardSet.open`` and ``ShardSet.read_record``.
    """
    shard_set = ShardSet.open(urls, patience)
    chosen = _spread_rows(shard_set.windows_per_record, most, _LEAST_RECORDS)
    live = shard_set.index.kind == "window"
    memory = BatchRows(_batch_format(shard_set, live), len(chosen.rows))

    def read(record: int, at: slice, rows: np.ndarray) -> list[WindowMeta]:
        block = shard_set.read_block(record, pictures=pictures)
        memory.fill(at, block, block_columns(block, shard_set.teachers), rows)
        return [block.metas[row] for row in rows.tolist()]

    parts = ((record, *place) for record, place in _places(chosen))
    metas = [meta for part in read_ahead(read, parts) for meta in part]
    batch = memory.batch()
    exact = {modality: values.float() for modality, values in batch.embeddings.items()}
    return LoadedWindows(replace(batch, embeddings=exact), metas, shard_set)


def sample_windows(
    shard_set: ShardSet, most: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """At most ``most`` windows, evenly spaced over all records: imu ``(n, C, T)`` and session.

    Yields the windows of one record at a time, in order; session ``(n,)`` int64 is ``session_id``.
    They are from at least 256 records, if there are so many and ``most`` is no less, and so from
    many sessions. Pictures
    are not read if the index allows that. Memory grows neither with the data nor with ``most``, if
    the caller does not keep the parts. Raises as ``ShardSet.read_record``.
    """
    chosen = _spread_rows(shard_set.windows_per_record, most, _MANY_RECORDS)
    records, starts = np.unique(chosen.records, return_index=True)
    rows = np.split(chosen.rows, starts[1:])

    def read(record: int, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        block = shard_set.read_block(record, pictures=False)
        return block.imu[own], block.session[own]

    yield from read_ahead(read, zip(records.tolist(), rows, strict=True))


def read_ahead(
    read: Callable[..., T], parts: Iterable[tuple[Any, ...]]
) -> Generator[T, None, None]:
    """``read(*part)`` of each part, in order; a few are read at once while the caller works."""
    parts = iter(parts)
    with ThreadPoolExecutor(_READS_AT_ONCE, "primus-read") as readers:
        waiting = deque(
            readers.submit(read, *part) for part in itertools.islice(parts, _READS_AT_ONCE)
        )
        while waiting:
            yield waiting.popleft().result()
            waiting += [readers.submit(read, *part) for part in itertools.islice(parts, 1)]


def _spread_rows(windows: np.ndarray, most: int | None, least_records: int) -> Rows:
    """At most ``most`` rows (None: all) of all records, which hold ``windows`` ``(R,)`` each.

    If there are more, evenly spaced rows of evenly spaced records are taken: of ``least_records``
    records, or of more if these hold less than ``most`` windows.
    """
    records = np.arange(len(windows))
    if most is not None:
        number = min(least_records, len(windows))
        while windows[records := _spread(len(windows), number)].sum() < min(most, windows.sum()):
            number += 1
    rows = rows_of(records, windows[records])
    count = len(rows.rows)
    return rows.take(_spread(count, min(most or count, count)))


def _spread(length: int, number: int) -> np.ndarray:
    """``number`` of the indices below ``length``, evenly spaced."""
    return np.arange(number) * length // number
