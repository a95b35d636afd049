"""Takes in the samples of one sensor: clean, in SI units, in order of time, gaps found.

data = read_sensor(sensor, "m/s2", 9.80665, gap_s=0.05, where="device left wrist")
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shards.recording import ACCELEROMETER, Samples, Sensor
from shards.report import SensorReport
from shards.signal.spool import Column, Median, Spool, row_type

GAP_PERIODS = 2.5  # spacings of samples up to this many usual ones are no gap at any rate
SATURATION = 0.999  # of full scale: the largest positive code lies one step below it
CHUNK_ROWS = 2**15  # taken in at once
LATEST_S = 1e11  # the year 5138; times beyond it, like those in ms or ns of a clock in s, are none
# Values that no sensor on a body gives, by SI unit: damaged records, invalid like those with NaN.
HIGHEST = {"m/s2": 1e4, "rad/s": 1e3}
DENSEST = 4.0  # samples a period: where the median spacing is that of bursts, the mean rules


class Gap(NamedTuple):
    """Time without valid samples of a sensor. invalid: records with NaN lay in it."""

    start_s: float
    end_s: float
    invalid: bool


@dataclass(frozen=True)
class SensorData:
    """A sensor's rows (``shards.signal.spool.row_type``) in order of time, its values in SI units.

    stretches: first row of each, and the row after its last. period_s: spacing to resample by.
    median_acc: median |a| in m/s2 where the sensor is an accelerometer.
    """

    rows: Column
    stretches: list[tuple[int, int]]
    gaps: list[Gap]
    period_s: float
    start_s: float
    end_s: float
    median_acc: float | None
    report: SensorReport


def read_sensor(
    sensor: Sensor, unit: str, factor: float, *, gap_s: float, where: str
) -> SensorData:
    """Read all samples of a sensor.

    unit, factor: SI unit, and the factor to it from the sensor's. gap_s: longest spacing that is no
    gap at any rate; 2.5 usual spacings never are. where: names the sensor in messages.

    ValueError where no sample has both a time and values.
    """
    intake = _Intake(sensor, unit, factor, gap_s)
    for samples in sensor.read():
        intake.add(samples)
    rows = intake.spool.finish()
    if not len(rows):
        raise ValueError(
            f"{where}: none of its {intake.samples} samples can be used ({intake.untimed} have no "
            f"time in seconds, {intake.invalid} hold NaN or impossible values); check that its "
            "file is complete, and the columns and units of its times and values"
        )
    spacing = Median()
    for _, steps in _steps(rows):
        spacing.add(steps)
    stretches, gaps, covered_s = _split(rows, max(gap_s, GAP_PERIODS * spacing.value()))
    gaps = [gap._replace(invalid=intake.nan_times.within(gap)) for gap in gaps]
    return SensorData(
        rows=rows,
        stretches=stretches,
        gaps=gaps,
        # A lone sample has no spacing; any will do for it.
        period_s=max(spacing.value(), covered_s / len(rows) / DENSEST) or gap_s,
        start_s=float(rows.read(0, 1)["time_s"][0]),
        end_s=float(rows.read(len(rows) - 1, len(rows))["time_s"][0]),
        median_acc=intake.median_acc(),
        report=SensorReport(
            channels=sensor.channels,
            unit=unit,
            samples=intake.samples,
            untimed=intake.untimed,
            invalid=intake.invalid,
            duplicates=intake.spool.duplicates,
            out_of_order=intake.spool.out_of_order,
            saturated=intake.saturated,
            rate_hz=1 / spacing.value() if len(rows) > 1 else 0.0,
            gaps=len(gaps),
            gap_s=sum((gap.end_s - gap.start_s for gap in gaps), 0.0),
            limit=None if sensor.limit is None else sensor.limit * abs(factor),
        ),
    )


class _Intake:
    """Takes a sensor's chunks: counts bad rows, converts the others and passes them on."""

    def __init__(self, sensor: Sensor, unit: str, factor: float, gap_s: float) -> None:
        self.samples = self.untimed = self.invalid = self.saturated = 0
        self.nan_times = _Times(gap_s)
        self.spool = Spool(len(sensor.channels))
        self._sensor = sensor
        self._factor = factor
        self._highest = HIGHEST.get(unit, float(np.finfo(np.float32).max))
        self._acc = [sensor.channels.index(c) for c in ACCELEROMETER if c in sensor.channels]
        self._acc_median = Median()

    def add(self, samples: Samples) -> None:
        time_s = np.asarray(samples.time_s, np.float64)
        values = np.asarray(samples.values, np.float64)
        assert values.shape == (len(time_s), len(self._sensor.channels))
        for start in range(0, len(time_s), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            self._add(time_s[part], values[part])

    def median_acc(self) -> float | None:
        return self._acc_median.value() if len(self._acc) == len(ACCELEROMETER) else None

    def _add(self, time_s: np.ndarray, values: np.ndarray) -> None:
        timed = np.abs(time_s) < LATEST_S  # neither NaN nor infinite
        saturated = np.zeros(len(values), bool)
        if self._sensor.limit is not None:
            saturated = (np.abs(values) >= SATURATION * self._sensor.limit).any(axis=1)
        values = values * self._factor
        if self._sensor.rectify is not None:
            values = self._sensor.rectify(values)
        possible = (np.abs(values) < self._highest).all(axis=1)  # neither NaN nor infinite
        self.samples += len(time_s)
        self.untimed += len(time_s) - int(timed.sum())
        self.invalid += int((timed & ~possible).sum())
        self.nan_times.add(time_s[timed & ~possible])
        good = timed & possible
        self.saturated += int(saturated[good].sum())
        rows = np.zeros(int(good.sum()), row_type(values.shape[1]))
        rows["time_s"], rows["values"] = time_s[good], values[good]
        rows["saturated"] = saturated[good]
        if len(self._acc) == len(ACCELEROMETER):
            self._acc_median.add(np.linalg.norm(rows["values"][:, self._acc], axis=1))
        self.spool.add(rows)


class _Times:
    """Times of invalid records, kept as intervals that end where none follows within ``gap_s``."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._parts: list[np.ndarray] = []
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, time_s: np.ndarray) -> None:
        if not len(time_s):
            return
        time_s = np.sort(time_s)
        breaks = np.flatnonzero(np.diff(time_s) > self._gap_s) + 1
        begins, ends = np.append(0, breaks), np.append(breaks, len(time_s)) - 1
        self._parts.append(np.stack([time_s[begins], time_s[ends]]))

    def within(self, gap: Gap) -> bool:
        """Whether one of the times lies in the gap, which is longer than ``gap_s``."""
        if not self._parts:
            return False
        if self._sorted is None:
            begins, ends = np.concatenate(self._parts, axis=1)
            order = np.argsort(begins)
            self._sorted = begins[order], np.maximum.accumulate(ends[order])
        begins, ends = self._sorted
        before = int(np.searchsorted(begins, gap.end_s))
        return before > 0 and bool(ends[before - 1] > gap.start_s)


def _split(rows: Column, limit_s: float) -> tuple[list[tuple[int, int]], list[Gap], float]:
    """Stretches and gaps of ordered rows, and the seconds that the stretches cover.

    A spacing above ``limit_s`` is a gap, so far not known to be one of invalid records.
    """
    bounds, gaps, covered_s = [0], [], 0.0
    for first, steps in _steps(rows):
        wide = steps > limit_s
        covered_s += float(steps[~wide].sum())
        for row in (first + np.flatnonzero(wide)).tolist():
            before_s, after_s = rows.read(row - 1, row + 1)["time_s"].tolist()
            bounds.append(row)
            gaps.append(Gap(before_s, after_s, invalid=False))
    return list(itertools.pairwise([*bounds, len(rows)])), gaps, covered_s


def _steps(rows: Column) -> Iterator[tuple[int, np.ndarray]]:
    """Spacings of ordered rows in blocks, each with the row that its first spacing leads to."""
    row, last_s = 1, np.empty(0)
    for block in rows.blocks():
        time_s = np.concatenate([last_s, block["time_s"]])
        yield row, np.diff(time_s)
        row, last_s = row + len(time_s) - 1, time_s[-1:]
