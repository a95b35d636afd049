"""Samples of a sensor on disk, put in order of time with bounded memory, whatever their number.

buffer = SampleBuffer(3)
buffer.add(rows)  # in file order
column = buffer.finish()  # in order of time
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

RUN_ROWS = 2**18  # sorted in memory at once; a row of six channels takes 33 bytes
PIVOT_ROWS = 2**10  # every such row's time is a candidate for a boundary of the merge
# Share of rows earlier than the one before. Up to it the file is in order but for clock jumps.
MOST_OUT_OF_ORDER = 0.1
CONFLICT_PERIODS = 0.6  # of two rows, one before and one after a jump back: nearer ones conflict
FEWEST_OVERLAPPING = 3  # rows of a part; from so many on the clock was set back
MOST_OF_ONE_TIME = 2**16  # rows; if there are more, the clock stands still


def row_type(channels: int) -> np.dtype:
    """A sample: time, part of the file (see ``SampleBuffer``), values, whether one is saturated.

    repeat: an earlier row has the same part, time and values. clock_set: the clock was set between
    the row before and this one.
    """
    fields = [("time_s", "f8"), ("part", "i4"), ("values", "f4", (channels,)), ("saturated", "?")]
    return np.dtype([*fields, ("repeat", "?"), ("clock_set", "?")])


class ScratchError(OSError):
    """The temporary folder cannot be used. The machine is at fault, not the recording."""


class Column:
    """Rows of one type in a temporary file (in ``TMPDIR``) that vanishes with the object.

    ScratchError naming the folder where the file cannot be made or written.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = np.dtype(dtype)
        with _in_scratch():
            self._file = tempfile.TemporaryFile(prefix="primus-scale-", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: np.ndarray) -> None:
        """Write rows at the end."""
        with _in_scratch():
            np.ascontiguousarray(rows, dtype=self.dtype.base).tofile(self._file)
        self._rows += len(rows)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` (excluded), those that there are."""
        start, stop = max(start, 0), min(stop, self._rows)
        size, offset = max(stop - start, 0) * self.dtype.itemsize, start * self.dtype.itemsize
        return self._typed(os.pread(self._file.fileno(), size, offset))

    def blocks(self, rows: int = RUN_ROWS) -> Iterator[np.ndarray]:
        """All rows in order, ``rows`` at a time."""
        for start in range(0, self._rows, rows):
            yield self.read(start, start + rows)

    def view(self) -> np.ndarray:
        """All rows, read-only, mapped from the file, so that memory stays small."""
        if not self._rows:
            return self._typed(b"")
        return self._typed(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))

    def _typed(self, data: bytes | mmap.mmap) -> np.ndarray:
        return np.frombuffer(data, self.dtype.base).reshape(-1, *self.dtype.shape)


def spacings(rows: Column) -> Iterator[tuple[int, np.ndarray]]:
    """Spacings of ordered rows, s, in blocks; each with the row that its first spacing leads to."""
    row, last_s = 1, np.empty(0)
    for block in rows.blocks():
        time_s = np.concatenate([last_s, block["time_s"]])
        yield row, np.diff(time_s)
        row, last_s = row + len(time_s) - 1, time_s[-1:]


@contextmanager
def _in_scratch() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScratchError(
            f"cannot write samples to the temporary folder {tempfile.gettempdir()} ({error}); "
            "free space there, or set TMPDIR to a larger one"
        ) from error


class Median:
    """Median of numbers not below zero, in one pass: to 0.07 %."""

    _PER_OCTAVE = 1024
    _OCTAVES = 40  # below and above one: 1e-12 to 1e12

    def __init__(self) -> None:
        classes = 2 * self._OCTAVES * self._PER_OCTAVE
        self._counts = np.zeros(classes, np.int64)
        self._sums = np.zeros(classes)

    def add(self, numbers: np.ndarray) -> None:
        """Count ``numbers`` ``(n,)``."""
        if not len(numbers):
            return
        octaves = np.log2(np.maximum(numbers, 2.0**-self._OCTAVES)) + self._OCTAVES
        places = np.minimum((octaves * self._PER_OCTAVE).astype(np.int64), len(self._counts) - 1)
        low, high = places.min(), places.max() + 1
        self._counts[low:high] += np.bincount(places - low)
        self._sums[low:high] += np.bincount(places - low, numbers)

    def value(self, share: float = 0.5) -> float:
        """The median, or the quantile of ``share``; zero without numbers."""
        total = self._counts.cumsum()
        if not total[-1]:
            return 0.0
        place = int(np.searchsorted(total, max(math.ceil(total[-1] * share), 1)))
        return float(self._sums[place] / self._counts[place])


class SampleBuffer:
    """Takes rows in file order and gives them back in order of time, equal times in file order.

    A step back in time begins a new part of the file. Where a part lies over time that an earlier
    one has recorded, its rows are left out: as ``duplicates`` where they repeat the earlier ones,
    time and values, as ``overlapping`` otherwise. Rows of one part may share a time; ``repeat``
    marks those with the values of another. ``out_of_order`` counts rows earlier than the one
    before. ``stands_still``: very many rows have one time.
    """

    def __init__(self, channels: int) -> None:
        self.out_of_order = 0
        self.duplicates = 0
        self.overlapping = 0
        self.stands_still = False
        self._column = Column(row_type(channels))
        self._runs: list[int] = [0]  # bounds of the sorted runs in the column
        self._pending: list[np.ndarray] = []
        self._pending_rows = 0
        self._last_s = -math.inf
        self._steps = Median()
        self._increasing = True
        # Rows of each part at times that are recorded already.
        self._overlapping_by_part: Counter[int] = Counter()

    def add(self, rows: np.ndarray) -> None:
        """Append rows; their ``part`` is filled in."""
        steps = np.diff(rows["time_s"], prepend=self._last_s)
        back = steps < 0
        rows["part"] = self.out_of_order + np.cumsum(back)
        self.out_of_order += int(back.sum())
        self._increasing &= bool((steps > 0).all())
        self._steps.add(steps[(steps > 0) & np.isfinite(steps)])
        self._last_s = rows["time_s"][-1] if len(rows) else self._last_s
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= RUN_ROWS:
            self._write_runs()

    @property
    def orderly(self) -> bool:
        """Whether the file is in order of time but for jumps of its clock."""
        return self.out_of_order <= MOST_OUT_OF_ORDER * max(self._runs[-1], 1)

    def finish(self) -> Column:
        """The rows in order of time, ``repeat`` and ``clock_set`` filled in."""
        self._write_runs()
        if self._increasing:
            return self._column
        merged = Column(self._column.dtype)
        last = np.empty(0, merged.dtype)  # of one time; rows of the next block may share it
        for block in self._merge():
            rows = self._once(np.concatenate([last, block]))
            wait = int(np.searchsorted(rows["time_s"], rows["time_s"][-1])) if len(rows) else 0
            merged.append(rows[:wait])
            last = rows[wait:]
        merged.append(last)
        return self._mark_clock_sets(merged)

    def _write_runs(self) -> None:
        if not self._pending_rows:
            return
        rows = np.concatenate(self._pending)
        self._pending, self._pending_rows = [], 0
        for start in range(0, len(rows), RUN_ROWS):
            run = self._not_too_many(_in_order(rows[start : start + RUN_ROWS]))
            self._column.append(run)
            self._runs.append(len(self._column))

    def _not_too_many(self, rows: np.ndarray) -> np.ndarray:
        """Ordered rows, at most ``MOST_OF_ONE_TIME`` of each time: memory must hold them."""
        first = _first_of_time(rows)
        keep = np.arange(len(rows)) - first < MOST_OF_ONE_TIME
        self.stands_still |= not keep.all()
        return rows if keep.all() else rows[keep]

    def _merge(self) -> Iterator[np.ndarray]:
        """All rows in blocks of rising times, runs one after the other within a block."""
        runs = list(itertools.pairwise(self._runs))
        times = [self._column.read(*run)["time_s"][::PIVOT_ROWS].copy() for run in runs]
        inner = np.sort(np.concatenate(times))[RUN_ROWS // PIVOT_ROWS :: RUN_ROWS // PIVOT_ROWS]
        bounds = np.array([-math.inf, *np.unique(inner), math.inf])
        places = [
            start + np.searchsorted(self._column.read(start, stop)["time_s"], bounds)
            for start, stop in runs
        ]
        for block in range(len(bounds) - 1):
            parts = [run[block : block + 2].tolist() for run in places]
            rows = [self._column.read(*part) for part in parts if part[0] < part[1]]
            if rows:
                yield np.concatenate(rows)

    def _once(self, rows: np.ndarray) -> np.ndarray:
        """Rows in order, those of later parts left out where an earlier part has the time."""
        rows = _in_order(rows)
        first = _first_of_time(rows)
        if (first == np.arange(len(rows))).all():
            return self._without_conflicts(rows)
        repeats = _repeats(rows)
        later = rows["part"] != rows["part"][first]
        if self.orderly:
            self._leave_out(rows, later, repeats)
        else:  # parts mean nothing here: rows of one time count as of one part
            later = np.zeros(len(rows), bool)
        kept = rows[~later]
        kept["repeat"] |= repeats[~later]
        return self._without_conflicts(kept)

    def _without_conflicts(self, rows: np.ndarray) -> np.ndarray:
        """Leave out samples between those of an earlier part of the file (ordered rows)."""
        if not self.orderly or not len(rows):
            return rows  # the order of the file says nothing
        first = _first_of_time(rows)
        heads = np.flatnonzero(first == np.arange(len(rows)))  # one of each time
        near = np.diff(rows["time_s"][heads]) < CONFLICT_PERIODS * self._steps.value()
        parts = np.diff(rows["part"][heads])
        left_out = np.zeros(len(heads), bool)
        left_out[1:] |= near & (parts > 0)
        left_out[:-1] |= near & (parts < 0)
        whole = left_out[np.cumsum(first == np.arange(len(rows))) - 1]
        self._leave_out(rows, whole, np.zeros(len(rows), bool))
        return rows[~whole]

    def _leave_out(self, rows: np.ndarray, which: np.ndarray, repeats: np.ndarray) -> None:
        """Count rows that are left out; those that are no ``repeats`` show that a clock was set."""
        self.duplicates += int((which & repeats).sum())
        self.overlapping += int((which & ~repeats).sum())
        self._overlapping_by_part.update(rows["part"][which & ~repeats].tolist())

    def _mark_clock_sets(self, rows: Column) -> Column:
        """Mark where rows of a clock that was set back follow others, or others follow them."""
        back = [
            part for part, count in self._overlapping_by_part.items() if count >= FEWEST_OVERLAPPING
        ]
        if not back:
            return rows
        marked = Column(rows.dtype)
        before = None
        for block in rows.blocks():
            block = block.copy()
            part = np.concatenate([block["part"][:1] if before is None else before, block["part"]])
            block["clock_set"] = (np.diff(part) != 0) & np.isin(
                np.maximum(part[1:], part[:-1]), back
            )
            before = part[-1:]
            marked.append(block)
        return marked


def _in_order(rows: np.ndarray) -> np.ndarray:
    """Sorted by time; equal times stay in file order."""
    if (np.diff(rows["time_s"]) < 0).any():
        return rows[np.argsort(rows["time_s"], kind="stable")]
    return rows


def _first_of_time(rows: np.ndarray) -> np.ndarray:
    """For each of the ordered rows, the number of the first with its time."""
    return np.searchsorted(rows["time_s"], rows["time_s"], side="left")


def _repeats(rows: np.ndarray) -> np.ndarray:
    """Which ordered rows have time and values of one before them."""
    keys = np.empty(
        len(rows), [("time_s", "f8"), ("values", rows["values"].dtype, rows["values"].shape[1:])]
    )
    keys["time_s"], keys["values"] = rows["time_s"], rows["values"] + 0.0  # -0.0 is 0.0
    _, first = np.unique(keys.view(np.dtype((np.void, keys.itemsize))), return_index=True)
    repeats = np.ones(len(rows), bool)
    repeats[first] = False
    return repeats
