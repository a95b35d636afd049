"""From shard folders to batches: schedule -> ranged read -> decode -> batch, ahead in threads.

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
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import torch
import webdataset

from primus_scale.config import DataConfig, NearConfig
from primus_scale.data.epoch_order import Rows
from primus_scale.data.record import Block
from primus_scale.data.schedule import make_schedule
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import Batch, WindowMeta
from primus_scale.storage.patience import Patience

T = TypeVar("T")

_COLUMNS = {
    **dict.fromkeys(("uid", "recording", "session", "label"), np.int64),
    "start_s": np.float64,
}
_LEAST_RECORDS = 16  # from which a part of a set is taken, so that it is from several folders
_MANY_RECORDS = 256  # from which a sample is taken, so that it is of many sessions
_WHOLE_READERS = 16  # concurrent reads of ``load_windows``; an object store takes 20 ms for each


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
    (r+1)*batch/world)``. ``live``: batches carry frames and texts instead of embeddings, which
    needs window shards. near: which windows of a session are near, for ``data.session_windows``.
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
    return BatchLoader(config, shard_set, choices, live, blocks=schedule.blocks)


class BatchLoader(Iterator[Batch]):
    """An iterator over batches. ``close`` (or leaving a ``with`` block) stops its threads."""

    def __init__(
        self,
        config: DataConfig,
        shard_set: ShardSet,
        choices: Iterable[Rows],
        live: bool,
        *,
        blocks: int,
    ) -> None:
        self._patience = config.patience()
        self._shard_set = shard_set.reading_with(self._patience)
        self._live = live
        self._ahead = config.prefetch_batches
        # A batch may straddle two groups of blocks; older ones are hardly needed again.
        self._cached_blocks = 2 * blocks
        self._blocks: OrderedDict[int, Future[Block]] = OrderedDict()
        self._readers = ThreadPoolExecutor(config.reader_threads, "primus-read")
        self._assembler = ThreadPoolExecutor(1, "primus-batch")
        self._waited_s = 0.0
        self._pipeline = iter(
            webdataset.DataPipeline(lambda: choices, self._request, self._read_ahead, self._collect)
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
        # Reads are cancelled first: an assembly that waits for one of them then ends too.
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._assembler.shutdown(cancel_futures=True)
        self._readers.shutdown()
        self._blocks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, choices: Iterable[Rows]) -> Iterator[Future[Batch]]:
        """Stage: start the reads that a batch needs, and its assembly after them."""
        for chosen in choices:
            blocks = {int(record): self._block(int(record)) for record in np.unique(chosen.records)}
            yield self._assembler.submit(self._assemble_when_read, chosen, blocks)
            while len(self._blocks) > self._cached_blocks:
                self._blocks.popitem(last=False)

    def _read_ahead(self, requests: Iterator[Future[Batch]]) -> Iterator[Future[Batch]]:
        """Stage: prepare some batches while the caller works on one."""
        waiting: deque[Future[Batch]] = deque()
        for request in requests:
            waiting.append(request)
            if len(waiting) > self._ahead:
                yield waiting.popleft()
        yield from waiting

    def _collect(self, requests: Iterator[Future[Batch]]) -> Iterator[Batch]:
        """Stage: wait for each batch in turn."""
        for request in requests:
            yield request.result()

    def _block(self, record: int) -> Future[Block]:
        if record not in self._blocks:
            self._blocks[record] = self._readers.submit(self._shard_set.read_block, record)
        self._blocks.move_to_end(record)
        return self._blocks[record]

    def _assemble_when_read(self, chosen: Rows, blocks: Mapping[int, Future[Block]]) -> Batch:
        ready = {record: future.result() for record, future in blocks.items()}
        return _assemble(chosen, ready, self._shard_set, self._live)


@dataclass(frozen=True)
class LoadedWindows:
    """Windows of shard folders in memory, in the order of the shards.

    batch: their tensors, N rows (with embeddings from packed shards, with frames and texts from
    window shards). metas: of each window. shard_set: class names, teachers, rate and units.
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
    records = np.unique(chosen.records).tolist()
    with ThreadPoolExecutor(_WHOLE_READERS, "primus-read") as readers:
        read = readers.map(partial(shard_set.read_block, pictures=pictures), records)
        blocks = dict(zip(records, read, strict=True))
    pairs = zip(chosen.records.tolist(), chosen.rows.tolist(), strict=True)
    return LoadedWindows(
        batch=_assemble(chosen, blocks, shard_set, live=shard_set.index.kind == "window"),
        metas=[blocks[record].metas[row] for record, row in pairs],
        shard_set=shard_set,
    )


def sample_windows(
    shard_set: ShardSet, most: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """At most ``most`` windows, evenly spaced over all records: imu ``(n, C, T)`` and session.

    Yields those of one record at a time, in order; session ``(n,)`` int64 is ``session_id``. They
    are from several hundred records where there are so many, and so from many sessions. Pictures
    are not read where the index allows that. Memory does not grow with the data, nor with
    ``most`` if each part is used at once. Raises as ``ShardSet.read_record``.
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
    with ThreadPoolExecutor(_WHOLE_READERS, "primus-read") as readers:
        waiting = deque(
            readers.submit(read, *part) for part in itertools.islice(parts, _WHOLE_READERS)
        )
        while waiting:
            yield waiting.popleft().result()
            waiting += [readers.submit(read, *part) for part in itertools.islice(parts, 1)]


def _spread_rows(windows: np.ndarray, most: int | None, least_records: int) -> Rows:
    """At most ``most`` rows of records that hold ``windows`` each; None: all rows.

    Of more rows evenly spaced ones are taken, from evenly spaced records: ``least_records``, or as
    many as hold ``most`` windows.
    """
    records = np.arange(len(windows))
    if most is not None:
        number = min(least_records, len(windows))
        while windows[records := _spread(len(windows), number)].sum() < min(most, windows.sum()):
            number += 1
    rows = Rows(
        records=np.repeat(records, windows[records]),
        rows=np.concatenate([np.arange(count) for count in windows[records]]),
    )
    count = len(rows.rows)
    return rows.take(_spread(count, min(most or count, count)))


def _spread(length: int, number: int) -> np.ndarray:
    """``number`` of the indices below ``length``, evenly spaced."""
    return np.arange(number) * length // number


def _assemble(chosen: Rows, blocks: Mapping[int, Block], shard_set: ShardSet, live: bool) -> Batch:
    """The batch of the chosen windows, copied block by block, since one by one takes longer."""
    count, teachers, index = len(chosen.rows), shard_set.teachers, shard_set.index
    any_block = next(iter(blocks.values()))
    imu = np.empty((count, *any_block.imu.shape[1:]), dtype=np.float32)
    columns = {name: np.empty(count, dtype=dtype) for name, dtype in _COLUMNS.items()}
    embeddings = {m: np.zeros((count, t.dim), dtype=np.float32) for m, t in teachers.items()}
    present = {m: np.zeros(count, dtype=np.bool_) for m in teachers}
    frames: list[tuple[bytes, ...]] = [()] * count
    texts: list[tuple[str, ...]] = [()] * count

    by_record = np.argsort(chosen.records, kind="stable")
    ends = np.flatnonzero(np.diff(chosen.records[by_record])) + 1
    for positions in np.split(by_record, ends):
        block = blocks[int(chosen.records[positions[0]])]
        rows = chosen.rows[positions]
        imu[positions] = block.imu[rows]
        for name, column in columns.items():
            column[positions] = getattr(block, name)[rows]
        for modality in block.embeddings:
            embeddings[modality][positions] = block.embeddings[modality][rows]
            present[modality][positions] = block.present[modality][rows]
        if live:
            for position, row in zip(positions.tolist(), rows.tolist(), strict=True):
                frames[position] = block.frames[row]
                texts[position] = block.metas[row].texts
    return Batch(
        imu=torch.from_numpy(imu),
        **{name: torch.from_numpy(column) for name, column in columns.items()},
        embeddings={name: torch.from_numpy(value) for name, value in embeddings.items()},
        present={name: torch.from_numpy(value) for name, value in present.items()},
        frames=frames if live else None,
        texts=texts if live else None,
        span_s=(index.window_samples - 1) / index.rate_hz,
    )
