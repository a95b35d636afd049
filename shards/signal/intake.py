"""Takes in the samples of one sensor: clean, in SI units, in order of time, gaps found.

data = read_sensor(sensor, "m/s2", 9.80665, rate_hz=50.0, limits=settings, where="device watch")
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from primus_scale.signal.gaps import UNEVEN_PERIODS, longest_spacing_s
from primus_scale.signal.gravity import calm_lengths, mean_lengths, visible_gravity
from shards.recording import ACCELEROMETER, Samples, Sensor
from shards.report import REFUSE, Finding, SensorReport
from shards.settings import SensorLimits
from shards.signal.axes import over_axes
from shards.signal.clock_steps import find_steps
from shards.signal.faults import FaultCounts, without_faults
from shards.signal.one_clock import Retiming, on_one_clock
from shards.signal.sample_buffer import Column, Median, SampleBuffer, row_type, spacings
from shards.signal.sensor_gates import judge_sensor

SATURATION = 0.999  # of full scale: the largest positive code lies one step below it
CHUNK_ROWS = 2**15  # taken in at once
LATEST_S = 1e11  # the year 5138; later times are in ms, us or ns, not in s
DAMAGE_FACTOR = 10.0  # times the highest rotation of any device; beyond it a record is damaged
MOST_SAMPLES_A_PERIOD = 4.0  # where samples come in bursts, their median spacing is too short
PEAK_SHARE = 0.999  # of rows whose values the usual peak is not below
TIME_TOLERANCE = 0.125  # of the windows' period: error allowed to all times of a sensor together


class Gap(NamedTuple):
    """Time without valid samples of a sensor.

    invalid: records with NaN, zeros, repetitions or spikes lay in it. clock: none is missing, but
    the clock was set forward or back.
    """

    start_s: float
    end_s: float
    invalid: bool
    clock: bool = False


@dataclass(frozen=True)
class SensorData:
    """A sensor's rows (``sample_buffer.row_type``) in order of time, its values in SI units.

    segments: first row of each, and the row after its last. period_s: spacing to resample by.
    median_acc: median |a| in m/s2 where the sensor is an accelerometer; mean_acc: length of the
    mean vector of five seconds, median over all; gravity: of seconds in
    which it was still (None: too few). findings: of its gates.
    """

    rows: Column
    segments: list[tuple[int, int]]
    gaps: list[Gap]
    period_s: float
    start_s: float
    end_s: float
    median_acc: float | None
    gravity: float | None
    mean_acc: float | None
    report: SensorReport
    findings: tuple[Finding, ...]


def read_sensor(
    sensor: Sensor,
    unit: str,
    factor: float,
    *,
    rate_hz: float,
    limits: SensorLimits,
    where: str,
    nominal_rate_hz: float | None = None,
) -> SensorData:
    """Read all samples of a sensor.

    unit, factor: SI unit, and the factor to it from the sensor's. rate_hz: of the windows. where:
    names the sensor in messages.

    ValueError where no sample has both a time and values, the times of samples cannot be told, or a
    gate refuses the sensor (``shards.signal.sensor_gates``).
    """
    intake, ordered = _take_in(sensor, unit, factor, limits, where)
    ordered, retiming = on_one_clock(
        ordered, limits, tolerance_s=TIME_TOLERANCE / rate_hz, where=where
    )
    rows, faults, fault_times = without_faults(ordered, unit, limits)
    if not len(rows):
        raise ValueError(f"{where}: all of its {intake.samples} samples are zeros; leave it out")
    intake.invalid_times.add(fault_times)
    first, last = ordered.read(0, 1), ordered.read(len(ordered) - 1, len(ordered))
    span = (float(first["time_s"][0]), float(last["time_s"][0]))
    division = _Segmentation.of(rows, span, intake.invalid_times, limits.gap_s)
    acc = [sensor.channels.index(c) for c in ACCELEROMETER if c in sensor.channels]
    measured = _measure(rows, acc if len(acc) == len(ACCELEROMETER) else [])
    report = _report(sensor, unit, factor, intake, retiming, faults, division, measured)
    findings = judge_sensor(
        report,
        limits,
        rate_hz=rate_hz,
        nominal_rate_hz=nominal_rate_hz,
        where=where,
        clock=sensor.clock,
    )
    refusal = next((one for one in findings if one.verdict == REFUSE), None)
    if refusal:
        raise ValueError(refusal.text)
    return SensorData(
        rows=rows,
        segments=division.segments,
        gaps=division.gaps,
        period_s=division.period_s,
        start_s=span[0],
        end_s=span[1],
        median_acc=measured.median_acc,
        gravity=measured.gravity,
        mean_acc=measured.mean_acc,
        report=report,
        findings=findings,
    )


def _take_in(
    sensor: Sensor, unit: str, factor: float, limits: SensorLimits, where: str
) -> tuple[_Intake, Column]:
    """All samples of a sensor in order of time; ValueError where none can be used."""
    intake = _Intake(sensor, unit, factor, limits)
    for samples in sensor.read():
        intake.add(samples)
    ordered = intake.buffer.finish()
    if not len(ordered):
        raise ValueError(
            f"{where}: none of its {intake.samples} samples can be used {intake.why_none()}"
        )
    if intake.buffer.stands_still:
        raise ValueError(
            f"{where}: more than 65,536 samples have one time: its clock stood still; leave it out"
        )
    return intake, ordered


def _report(
    sensor: Sensor,
    unit: str,
    factor: float,
    intake: _Intake,
    retiming: Retiming,
    faults: FaultCounts,
    division: _Segmentation,
    measured: _Measured,
) -> SensorReport:
    """All that was found in the sensor's samples."""
    return SensorReport(
        channels=sensor.channels,
        unit=unit,
        samples=intake.samples,
        untimed=intake.untimed + retiming.unusable,
        invalid=intake.invalid,
        duplicates=intake.buffer.duplicates + retiming.duplicates,
        out_of_order=intake.buffer.out_of_order,
        saturated=intake.saturated,
        rate_hz=division.rate_hz,
        gaps=sum(not gap.clock for gap in division.gaps),
        gap_s=sum((gap.end_s - gap.start_s for gap in division.gaps if not gap.clock), 0.0),
        limit=None if sensor.limit is None else sensor.limit * abs(factor),
        overlapping=intake.buffer.overlapping,
        shared_times=retiming.shared,
        zeros=faults.zeros,
        repeated=faults.repeated,
        spikes=faults.spikes,
        filled=division.filled,
        clock_steps=division.clock_steps,
        usual_peak=float(f"{measured.peak:.6g}"),
        notes=(retiming.note,) if retiming.note else (),
    )


class _Measured(NamedTuple):
    peak: float
    median_acc: float | None
    gravity: float | None
    mean_acc: float | None


def _measure(rows: Column, acc: list[int]) -> _Measured:
    """Sizes of the values. acc: columns of an accelerometer's axes (none: another sensor)."""
    peak, lengths = Median(), Median()
    calm: list[float] = []
    means: list[float] = []
    for block in rows.blocks():
        values = block["values"].astype(np.float64)
        peak.add(over_axes(np.maximum, np.abs(values)))
        if acc:
            lengths.add(np.linalg.norm(values[:, acc], axis=1))
            calm += calm_lengths(block["time_s"], values[:, acc])
            means += mean_lengths(block["time_s"], values[:, acc])
    if not acc:
        return _Measured(peak.value(PEAK_SHARE), None, None, None)
    mean_acc = float(np.median(means))
    return _Measured(peak.value(PEAK_SHARE), lengths.value(), visible_gravity(calm), mean_acc)


class _Intake:
    """Takes a sensor's chunks: counts bad rows, converts the others and passes them on."""

    def __init__(self, sensor: Sensor, unit: str, factor: float, limits: SensorLimits) -> None:
        self.samples = self.untimed = self.invalid = self.saturated = 0
        self.far_s = 0.0  # a finite time that cannot be in seconds
        self.invalid_times = _InvalidTimes(limits.gap_s)
        self.buffer = SampleBuffer(len(sensor.channels))
        self._sensor = sensor
        self._factor = factor
        highest = {"m/s2": limits.max_acc, "rad/s": DAMAGE_FACTOR * limits.max_rotation}
        self._highest = highest.get(unit, limits.max_value)

    def add(self, samples: Samples) -> None:
        time_s = np.asarray(samples.time_s, np.float64)
        values = np.asarray(samples.values, np.float64)
        assert values.shape == (len(time_s), len(self._sensor.channels))
        for start in range(0, len(time_s), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            self._add(time_s[part], values[part])

    def why_none(self) -> str:
        """Why no row could be used."""
        time = f"{self.untimed} have no time in seconds"
        if self.far_s:
            time += f", {self.far_s:.6g} s is beyond the year 5138: is it in ms, us or ns?"
        return (
            f"({time}, {self.invalid} hold NaN or impossible values); check that its file is "
            "complete, and the columns and units of its times and values"
        )

    def _add(self, time_s: np.ndarray, values: np.ndarray) -> None:
        timed = np.abs(time_s) < LATEST_S  # neither NaN nor infinite
        far = ~timed & np.isfinite(time_s)
        if far.any():
            self.far_s = float(time_s[far][0])
        saturated = np.zeros(len(values), bool)
        if self._sensor.limit is not None:
            high = np.abs(values) >= SATURATION * self._sensor.limit
            saturated = over_axes(np.logical_or, high)
        values = values * self._factor
        if self._sensor.rectify is not None:
            values = self._sensor.rectify(values)
        # Neither NaN nor infinite.
        possible = over_axes(np.logical_and, np.abs(values) < self._highest)
        self.samples += len(time_s)
        self.untimed += len(time_s) - int(timed.sum())
        self.invalid += int((timed & ~possible).sum())
        self.invalid_times.add(time_s[timed & ~possible])
        good = timed & possible
        self.saturated += int(saturated[good].sum())
        rows = np.zeros(int(good.sum()), row_type(values.shape[1]))
        rows["time_s"], rows["values"] = time_s[good], values[good]
        rows["saturated"] = saturated[good]
        self.buffer.add(rows)


class _InvalidTimes:
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


@dataclass(frozen=True)
class _Segmentation:
    """Ordered rows cut at gaps and at steps of their clock. rate_hz: over the segments.

    filled: samples missing within segments.
    """

    segments: list[tuple[int, int]]
    gaps: list[Gap]
    clock_steps: int
    period_s: float
    rate_hz: float
    filled: int

    @classmethod
    def of(
        cls, rows: Column, span: tuple[float, float], invalid: _InvalidTimes, gap_s: float
    ) -> _Segmentation:
        """span: of all rows, faulty ones included. gap_s: as ``SensorLimits.gap_s``."""
        median = Median()
        for _, spacing_s in spacings(rows):
            median.add(spacing_s)
        usual_s = median.value()
        limit_s = longest_spacing_s(usual_s, gap_s)
        covered_s, covered, filled = 0.0, 0, 0
        for _, spacing_s in spacings(rows):
            short = spacing_s <= limit_s
            covered_s += float(spacing_s[short].sum())
            covered += int(short.sum())
            missing = spacing_s[(spacing_s > UNEVEN_PERIODS * usual_s) & short] / usual_s
            filled += int((np.rint(missing) - 1).sum()) if usual_s else 0
        clock_set = _clock_set_rows(rows)
        # A lone sample has no spacing; any will do for it.
        period_s = max(usual_s, covered_s / len(rows) / MOST_SAMPLES_A_PERIOD) or gap_s
        if covered_s:
            clock_set |= set(find_steps(rows, covered_s / covered, limit_s))
        bounds, gaps = [0], []
        for row, gap in _breaks(rows, limit_s, clock_set):
            bounds.append(row)
            gaps.append(gap._replace(invalid=not gap.clock and invalid.within(gap)))
        ends = rows.read(0, 1)["time_s"][0], rows.read(len(rows) - 1, len(rows))["time_s"][0]
        for start_s, end_s in ((span[0], float(ends[0])), (float(ends[1]), span[1])):
            if start_s < end_s:
                gaps.append(Gap(start_s, end_s, invalid=True))
        segments = list(itertools.pairwise([*bounds, len(rows)]))
        rate_hz = covered / covered_s if covered_s else 0.0
        return cls(segments, gaps, len(clock_set), period_s, rate_hz, filled)


def _clock_set_rows(rows: Column) -> set[int]:
    """Rows before which a clock was set back."""
    found: set[int] = set()
    first = 0
    for block in rows.blocks():
        found |= set((first + np.flatnonzero(block["clock_set"])).tolist())
        first += len(block)
    return found - {0}


def _breaks(rows: Column, limit_s: float, clock_set: set[int]) -> Iterator[tuple[int, Gap]]:
    """First row after each gap or step of the clock, and what lies before it."""
    marked = np.array(sorted(clock_set), np.int64)
    for first, spacing_s in spacings(rows):
        wide = spacing_s > limit_s
        inside = marked[(marked >= first) & (marked < first + len(spacing_s))] - first
        cut = wide.copy()
        cut[inside] = True
        for row in (first + np.flatnonzero(cut)).tolist():
            before_s, after_s = rows.read(row - 1, row + 1)["time_s"].tolist()
            yield row, Gap(before_s, after_s, invalid=False, clock=not wide[row - first])
