"""A sensor of a GoPro's telemetry: its samples, block by block, and their clock.

sensor = TrackSensor("ACCL", "m/s2")
sensor.add(series, start_s, end_s)  # of each block
notes = sensor.finish(blocks=11, first_s=0.0, video_s=10.51)
for samples in sensor.read(): ...
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator

import numpy as np

from primus_scale.counted import counted
from shards.readers.gopro_clock import SampleClock, SensorBlocks, read_clock
from shards.readers.gpmf import Series
from shards.readers.rows import CHUNK_ROWS
from shards.recording import Samples
from shards.signal.sample_buffer import Column

APART_S = 0.25  # left out where a file was joined from two; longer than what is filled in


class TrackSensor:
    """A sensor's samples. unit: of the samples. limit: their full scale in it, None if unknown."""

    def __init__(self, key: str, unit: str) -> None:
        self.key = key
        self.unit = unit
        self.limit: float | None = None
        self.samples = 0
        self._blocks: list[tuple[float, float, int, float]] = []  # start, end, samples, stamp
        self._totals: list[int | None] = []
        self._column = Column(np.dtype(("f8", (3,))))
        self._first = np.empty(0, np.int64)  # number of the first sample of each block
        self._clocks: list[tuple[int, SampleClock]] = []  # each with the number it begins at

    def add(self, series: Series, start_s: float, end_s: float) -> None:
        """Append a block's samples, possibly none; ValueError where their unit is another."""
        if series.unit != self.unit:
            raise ValueError(f"its unit {series.unit} was {self.unit} before")
        count = len(series.values)
        if not count:
            return
        stamp_s = np.nan if series.stamp_s is None else series.stamp_s
        self.limit = series.limit if not self._blocks or series.limit == self.limit else None
        self._blocks.append((start_s, end_s, count, stamp_s))
        self._totals.append(series.total)
        self._column.append(series.values)
        self.samples += count

    @property
    def stamps(self) -> list[tuple[float, float]]:
        """Start of each block in the video, and by STMP, s; empty where some block has no STMP."""
        stamps = [(start_s, stamp_s) for start_s, _, _, stamp_s in self._blocks]
        return stamps if np.isfinite([stamp_s for _, stamp_s in stamps]).all() else []

    def finish(self, blocks: int, first_s: float, video_s: float | None) -> list[str]:
        """Find the clock, after all blocks were added; returns notes on what is missing or unusual.

        blocks: number in the track. first_s: beginning of the first. video_s: end of the video
        (None: unknown).
        """
        starts_s, ends_s, counts, stamps_s = (np.array(c) for c in zip(*self._blocks, strict=True))
        self._first, restarts, notes = self._numbers(counts)
        bounds = [*restarts, len(counts)]
        for begin, stop in itertools.pairwise(bounds):
            here = slice(begin, stop)
            clock = read_clock(
                SensorBlocks(
                    starts_s[here], ends_s[here], self._first[here], counts[here], stamps_s[here]
                ),
                starts_s=() if begin else (first_s,),
                ends_s=() if stop < len(counts) or video_s is None else (video_s,),
            )
            self._clocks.append((int(self._first[begin]), clock))
        if missing := blocks - len(counts):
            notes.append(
                f"{self.key}: no samples in {missing} of {blocks} telemetry blocks; they came with "
                "another block, or are a gap"
            )
        if any(clock.untimed for _, clock in self._clocks) and (untimed := self._untimed()):
            notes.append(
                f"{self.key}: {counted(untimed, 'sample')} left out, at pauses or steps of the "
                "clock within the file, or in blocks without duration"
            )
        return notes

    def _numbers(self, counts: np.ndarray) -> tuple[np.ndarray, list[int], list[str]]:
        """Number of each block's first sample, blocks at which counting starts anew, and notes."""
        before = np.cumsum(counts) - counts
        if any(total is None for total in self._totals):
            return before, [0], []
        # By how much TSMP is above the number of samples that are there, before each block.
        ahead = np.array(self._totals, np.int64) - counts - before
        for k in range(1, len(ahead) - 1):
            if ahead[k] != ahead[k - 1] == ahead[k + 1]:
                ahead[k] = ahead[k - 1]  # one damaged number
        change = np.diff(ahead)
        if len(change) and (change != 0).mean() > 0.5:
            return before, [0], [f"{self.key}: TSMP does not count its samples; they were counted"]
        notes = []
        if (lost := change[change > 0]).size:
            notes.append(
                f"{self.key}: {counted(int(lost.sum()), 'sample')} lost in "
                f"{counted(lost.size, 'place')}, by TSMP"
            )
        restarts = (np.flatnonzero(change < 0) + 1).tolist()
        if restarts:
            notes.append(
                f"{self.key}: counting starts again at {counted(len(restarts), 'block')}, as in a "
                f"file joined from several recordings; {APART_S:g} s left out at each, so that "
                "none spans two"
            )
        return (
            before + np.concatenate([[0], np.cumsum(np.maximum(change, 0))]),
            [0, *restarts],
            notes,
        )

    def read(self) -> Iterator[Samples]:
        """The samples in chunks, at times in the video in s; NaN where they are not known."""
        row = 0
        rows_before = np.cumsum([0, *(count for _, _, count, _ in self._blocks)])
        for values in self._column.blocks(CHUNK_ROWS):
            rows = np.arange(row, row + len(values))
            block = np.searchsorted(rows_before, rows, side="right") - 1
            yield Samples(self._times(self._first[block] + rows - rows_before[block]), values)
            row += len(values)

    def rate_hz(self) -> float:
        """Samples a second of video, 0 where it is unknown."""
        rates = [(clock.longest_line, clock.rate_hz) for _, clock in self._clocks]
        return max(rates)[1]

    def _untimed(self) -> int:
        """Number of samples without a time."""
        begins = [begin for begin, _ in self._clocks]
        untimed = 0
        for (_, _, count, _), first in zip(self._blocks, self._first.tolist(), strict=True):
            _, clock = self._clocks[bisect.bisect_right(begins, first) - 1]
            untimed += int(np.isnan(clock.times(np.arange(first, first + count))).sum())
        return untimed

    def _times(self, numbers: np.ndarray) -> np.ndarray:
        time_s = np.full(len(numbers), np.nan)
        for row, (first, clock) in enumerate(self._clocks):
            late = round(APART_S * clock.rate_hz) if row else 0
            stop = self._clocks[row + 1][0] if row + 1 < len(self._clocks) else np.inf
            here = (numbers >= first + late) & (numbers < stop)
            time_s[here] = clock.times(numbers[here])
        return time_s
