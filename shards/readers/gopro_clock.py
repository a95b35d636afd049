"""Times of a GoPro's samples: one clock a file for each sensor, from cumulative counts.

clock = read_clock(blocks, starts_s=(0.0,), ends_s=(10.51,))
clock.times(numbers)  # s in the video, of samples by their number since the recording began

A camera writes its samples about once a second, at no exact time. So the time of a block says
little about when its samples were taken. But the sensor itself is steady. So a straight line is
fitted to points with a known sample number and a known time in the video: the borders of blocks or,
where the telemetry has them, the stamps of their first samples (STMP). Source: GoPro, "GPMF
Introduction", "GPMF Timing and Clocks" and "Sample Jitter".

A line ends where the points step to another line for good, as where recording was paused. It bends
where the sensor's clock drifts against the video's. Samples get no time where it is unknown on
which side of a step they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from shards.readers.clock_line import EVEN_SPREAD, MOST_SPREADS, Line, fit_line

STEP_S = 0.06  # least step of a clock, where blocks are even
STEP_SPREADS = 5.0  # least step in spreads of the points, where blocks are uneven
NEAR_POINTS = 5  # points before and after a step that are compared
RATE_TOLERANCE = 0.02  # between the rate of stamps and that of the video


class SensorBlocks(NamedTuple):
    """A sensor's blocks that hold samples, in order, an array ``(k,)`` each.

    start_s, end_s: in the video. first: number of the block's first sample, ascending. counts:
    their samples. stamp_s: time of the first sample, on any clock; NaN where it is unknown.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    stamp_s: np.ndarray

    @property
    def total(self) -> int:
        """Number after that of the last sample."""
        return int(self.first[-1] + self.counts[-1])


class SampleClock(NamedTuple):
    """Times of samples by their numbers. untimed: number of samples without a time."""

    lines: tuple[Line, ...]
    untimed: int

    @property
    def longest_line(self) -> int:
        """Samples of the longest line."""
        return max((line.stop - line.first for line in self.lines), default=0)

    @property
    def rate_hz(self) -> float:
        """Samples a second on the longest line; 0 where there is none."""
        if not self.lines:
            return 0.0
        line = max(self.lines, key=lambda line: line.stop - line.first)
        return float((line.knots[-1] - line.knots[0]) / (line.knots_s[-1] - line.knots_s[0]))

    def times(self, numbers: np.ndarray) -> np.ndarray:
        """Times in the video, s, float64 ``(n,)``; NaN where they are not known."""
        time_s = np.full(len(numbers), np.nan)
        for line in self.lines:
            here = (numbers >= line.first) & (numbers < line.stop)
            time_s[here] = np.interp(numbers[here], line.knots, line.knots_s)
        return time_s


class _Points(NamedTuple):
    """Sample numbers with known times. exact: these are stamps, not borders of blocks."""

    number: np.ndarray
    time_s: np.ndarray
    exact: bool


def read_clock(
    blocks: SensorBlocks, *, starts_s: Sequence[float] = (), ends_s: Sequence[float] = ()
) -> SampleClock:
    """The clock of a sensor.

    starts_s, ends_s: possible times of its first sample and of its last: beginning and end of the
    video. The start of its first block and the end of its last (which may be nominal) are tried as
    well. A time is used if it is on the line of the other points.
    """
    starts_s = (float(blocks.start_s[0]), *starts_s)
    ends_s = (float(blocks.end_s[-1]), *ends_s)
    points = _points(blocks)
    if len(points.number) < 2:
        return _single_block_clock(blocks, ends_s)
    period_s = _period(points.number, points.time_s)
    if not period_s > 0:  # blocks without duration
        return _no_clock(blocks)
    spread_s = _spread(points, period_s)
    steps = _find_steps(points, period_s, max(STEP_S, STEP_SPREADS * spread_s))
    bounds = [0, *steps, len(points.number)]
    lines = []
    for begin, stop in itertools.pairwise(bounds):
        number, time_s = points.number[begin:stop], points.time_s[begin:stop]
        final = stop == len(points.number)
        last = blocks.total if final else int(number[-1])
        known_s = time_s[:1].tolist() if points.exact else [] if begin else starts_s
        starts = [(float(number[0]), at_s) for at_s in known_s]
        ends = [(float(last), end_s) for end_s in ends_s if final and not points.exact]
        lines.append(
            fit_line(number, time_s, last=last, period_s=period_s, starts=starts, ends=ends)
        )
    assigned = _assign_samples(lines, blocks, STEP_SPREADS * spread_s, period_s)
    timed = sum(line.stop - line.first for line in assigned)
    return SampleClock(tuple(assigned), blocks.total - int(blocks.first[0]) - timed)


def _single_block_clock(blocks: SensorBlocks, ends_s: Sequence[float]) -> SampleClock:
    """The clock of a single block: its samples are evenly spaced in it, up to the video's end."""
    first, start_s, end_s = int(blocks.first[0]), float(blocks.start_s[0]), ends_s[0]
    if ends_s[-1] < end_s - STEP_S:  # the video is shorter than the block is said to be
        end_s = ends_s[-1]
    if not end_s > start_s:
        return _no_clock(blocks)
    knots = np.array([first, blocks.total], np.float64)
    line = Line(first, blocks.total, knots, np.array([start_s, end_s]))
    return SampleClock((line,), 0)


def _no_clock(blocks: SensorBlocks) -> SampleClock:
    return SampleClock((), blocks.total - int(blocks.first[0]))


def _points(blocks: SensorBlocks) -> _Points:
    """Stamps, if all blocks have one and their rate is the video's; else the borders of blocks.

    If several borders follow the same sample, the earliest counts: later blocks were empty.
    """
    starts, ends = blocks.first, (blocks.first + blocks.counts)[:-1]
    number = np.concatenate([starts, ends])
    time_s = np.concatenate([blocks.start_s, blocks.end_s[:-1]])
    order = np.lexsort((time_s, number))
    number, rows = np.unique(number[order], return_index=True)
    borders = _Points(number.astype(np.float64), time_s[order][rows], exact=False)
    if len(blocks.first) < 3 or not np.isfinite(blocks.stamp_s).all():
        return borders
    stamps = _Points(blocks.first.astype(np.float64), blocks.stamp_s, exact=True)
    period_s = _period(borders.number, borders.time_s)
    stamped_s = _period(stamps.number, stamps.time_s)
    if not abs(stamped_s / period_s - 1) < RATE_TOLERANCE:
        return borders
    spread_s = _spread(borders, period_s)
    if _spread(stamps, stamped_s) > max(spread_s, EVEN_SPREAD * period_s):
        return borders
    # Stamps count from an unknown time. The first sample is put at its block's start, unless the
    # borders of all blocks together disagree.
    _, border_rows, stamp_rows = np.intersect1d(borders.number, stamps.number, return_indices=True)
    shifts_s = borders.time_s[border_rows] - stamps.time_s[stamp_rows]
    usual_s, first_s = float(np.median(shifts_s)), float(shifts_s[0])
    error_s = MOST_SPREADS * 1.25 * spread_s / np.sqrt(len(shifts_s)) + 1.5 * period_s
    return stamps._replace(
        time_s=stamps.time_s + (first_s if abs(usual_s - first_s) <= error_s else usual_s)
    )


def _period(number: np.ndarray, time_s: np.ndarray) -> float:
    """Seconds a sample: median over points several blocks apart, so single errors are small."""
    apart = min(NEAR_POINTS, len(number) - 1)
    return float(np.median((time_s[apart:] - time_s[:-apart]) / (number[apart:] - number[:-apart])))


def _spread(points: _Points, period_s: float) -> float:
    """Standard deviation of the points about a line, by the median of their differences, s."""
    off_s = points.time_s - period_s * points.number
    return 1.4826 * float(np.median(np.abs(np.diff(off_s)))) / np.sqrt(2)


def _find_steps(points: _Points, period_s: float, least_s: float) -> list[int]:
    """Numbers of the points at which the clock stepped for good, at least two from either end."""
    off_s = points.time_s - period_s * points.number
    rows, near_s = range(2, len(off_s) - 1), off_s.tolist()
    # Of five numbers, `statistics` is ten times as quick as numpy.
    step_s = np.array(
        [
            median(near_s[row : row + NEAR_POINTS])
            - median(near_s[max(row - NEAR_POINTS, 0) : row])
            for row in rows
        ]
    )
    wide = np.flatnonzero(np.abs(step_s) > least_s)
    found: list[int] = []
    for group in np.split(wide, np.flatnonzero(np.diff(wide) > 1) + 1):
        if len(group):
            here = group + rows.start
            found.append(int(here[np.argmax(np.abs(off_s[here] - off_s[here - 1]))]))
    return found


def _assign_samples(
    lines: list[Line], blocks: SensorBlocks, spill_s: float, period_s: float
) -> list[Line]:
    """The lines; samples between two of them are added to the line that fits their blocks.

    If both lines fit, as in a block during which recording was paused, or neither does, the samples
    get no time. Samples next to a step get none either, since they may belong to its other side.
    """
    assigned, late_s, spilled = lines[:1], max(STEP_S, spill_s), round(spill_s / period_s)
    for line in lines[1:]:
        before = assigned[-1]
        between = (blocks.first >= before.stop) & (blocks.first < line.first)
        fits = [_fits_blocks(one, blocks, between, late_s) for one in (before, line)]
        first = before.stop if fits == [False, True] else line.first
        stop = line.first if fits == [True, False] else before.stop
        assigned[-1] = _extended(before, before.first, max(stop - spilled, before.first + 1))
        assigned.append(_extended(line, min(first + spilled, line.stop - 1), line.stop))
    return assigned


def _fits_blocks(line: Line, blocks: SensorBlocks, which: np.ndarray, late_s: float) -> bool:
    """Whether the line puts the samples of these blocks within the blocks' times in the video."""
    return all(
        start_s - late_s <= line.at(first) and line.at(first + count - 1) <= end_s + late_s
        for start_s, end_s, first, count in zip(
            blocks.start_s[which],
            blocks.end_s[which],
            blocks.first[which],
            blocks.counts[which],
            strict=True,
        )
    )


def _extended(line: Line, first: int, stop: int) -> Line:
    """The line continued to the samples ``first`` to ``stop``."""
    low, high = min(first, line.knots[0]), max(stop, line.knots[-1])
    knots = np.concatenate([[low], line.knots[1:-1], [high]])
    return Line(first, stop, knots, np.array([line.at(number) for number in knots]))
