"""The one signal path: from a device's raw samples to SI units on the common grid k / rate_hz.

signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)
for segment in signal.segments:
    segment.values  # (C, n), first sample at segment.start / rate_hz on the recording's clock

For each sensor, in this order:

1. drop rows without time or with NaN;
2. convert and rectify, once;
3. order by time, and put samples that share a time on one clock;
4. leave out what is no measurement;
5. find gaps and steps of the clock;
6. resample every segment between them whole (``Resampler``).

Then the sensors are joined where all of them have a signal. Samples wait in temporary files (in
``TMPDIR``), so memory is bounded however long the recording is.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from primus_scale.signal.resample import Resampler
from primus_scale.signal.units import UNIT_FACTORS
from shards.recording import Device, Sensor
from shards.report import Finding, SensorReport
from shards.settings import SensorLimits
from shards.signal.intake import Gap, SensorData, read_sensor
from shards.signal.sample_buffer import Column

BLOCK_ROWS = 2**15  # resampled at once
USUAL_LIMITS = SensorLimits()


@dataclass(frozen=True)
class Segment:
    """A signal without gaps. start: grid index of its first sample, start / rate_hz seconds.

    values: float32 ``(C, n)`` in SI units. saturated: bool ``(n,)``, where a sample at full scale
    has gone into the value. Both are read-only.
    """

    start: int
    values: np.ndarray
    saturated: np.ndarray

    @property
    def stop(self) -> int:
        """Grid index after its last sample."""
        return self.start + int(self.values.shape[1])


@dataclass(frozen=True)
class Conditioned:
    """What a device's samples became.

    start_s, end_s: where all sensors that it has have samples, gaps included. gaps: those of all
    its sensors, by start. median_acc: median |a| in m/s2 before resampling, mean_acc: length of the
    mean of five seconds, gravity: |a| of seconds in
    which the device was still (None without accelerometer, or without such seconds). missing:
    channels that no sensor has; then there are no segments. findings: of the sensors' gates.
    """

    rate_hz: float
    channels: tuple[str, ...]
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    start_s: float
    end_s: float
    median_acc: float | None
    sensors: tuple[SensorReport, ...]
    missing: tuple[str, ...] = ()
    gravity: float | None = None
    mean_acc: float | None = None
    findings: tuple[Finding, ...] = ()
    _starts: list[int] = field(init=False, repr=False, compare=False)
    _invalid: np.ndarray = field(init=False, repr=False, compare=False)
    _clock: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        invalid = [(gap.start_s, gap.end_s) for gap in self.gaps if gap.invalid]
        clock = [(gap.start_s, gap.end_s) for gap in self.gaps if gap.clock]
        object.__setattr__(self, "_starts", [segment.start for segment in self.segments])
        object.__setattr__(self, "_invalid", np.array(invalid, np.float64).reshape(-1, 2))
        object.__setattr__(self, "_clock", np.array(clock, np.float64).reshape(-1, 2))

    def segment_at(self, index: int) -> Segment | None:
        """The segment that holds this grid index."""
        place = bisect.bisect_right(self._starts, index) - 1
        if place < 0 or index >= self.segments[place].stop:
            return None
        return self.segments[place]

    def invalid_within(self, start_s: float, end_s: float) -> bool:
        """Whether a gap made by invalid records reaches into this time."""
        return _reaches(self._invalid, start_s, end_s)

    def clock_set_within(self, start_s: float, end_s: float) -> bool:
        """Whether a sensor's clock was set forward or back in this time."""
        return _reaches(self._clock, start_s, end_s)


def _reaches(spans: np.ndarray, start_s: float, end_s: float) -> bool:
    return bool(((spans[:, 0] < end_s) & (spans[:, 1] > start_s)).any())


def condition(
    device: Device,
    *,
    channels: Sequence[str],
    units: Sequence[str],
    rate_hz: float,
    limits: SensorLimits = USUAL_LIMITS,
) -> Conditioned:
    """Bring the samples of a device's sensors to SI units on the grid k / rate_hz.

    channels, units: of the windows, in their order; sensors without any of them are ignored. A gap
    is a spacing of samples above ``limits.gap_s`` and 1.5 usual ones, and above 2.5 or 90 ms.

    Raises ValueError, with device and sensor, where no usable sample is left, a gate refuses the
    sensor, or a unit is unknown or is not that of the windows. Also where two sensors have the same
    channel, or none has any of the channels.
    """
    wanted = dict(zip(channels, units, strict=True))
    used = [sensor for sensor in device.sensors if not wanted.keys().isdisjoint(sensor.channels)]
    present = [name for sensor in used for name in sensor.channels if name in wanted]
    for name in present:
        if present.count(name) > 1:
            raise ValueError(f"device {device.name} has two sensors for {name}; choose one")
    if not used:
        raise ValueError(
            f"device {device.name} has no sensor for any of {', '.join(wanted)}, the windows' "
            "channels; leave it out, or name other channels"
        )
    read = [_read(device, sensor, wanted, rate_hz, limits) for sensor in used]
    missing = tuple(name for name in wanted if name not in present)
    segments: tuple[Segment, ...] = ()
    if not missing:
        places = [_places(sensor, channels) for sensor in used]
        resampled = [_resample(one, rate_hz) for one in read]
        segments = _join(resampled, places, len(channels))
    return Conditioned(
        rate_hz=rate_hz,
        channels=tuple(channels),
        segments=segments,
        gaps=tuple(sorted(gap for one in read for gap in one.gaps)),
        start_s=max(one.start_s for one in read),
        end_s=min(one.end_s for one in read),
        median_acc=next((one.median_acc for one in read if one.median_acc is not None), None),
        sensors=tuple(one.report for one in read),
        missing=missing,
        gravity=next((one.gravity for one in read if one.gravity is not None), None),
        mean_acc=next((one.mean_acc for one in read if one.mean_acc is not None), None),
        findings=tuple(finding for one in read for finding in one.findings),
    )


def _read(
    device: Device,
    sensor: Sensor,
    wanted: Mapping[str, str],
    rate_hz: float,
    limits: SensorLimits,
) -> SensorData:
    """Take the sensor in, its unit checked against those ``wanted`` of the channels."""
    where = f"device {device.name}, sensor {' '.join(sensor.channels)}"
    if sensor.unit not in UNIT_FACTORS:
        raise ValueError(
            f"{where}: unknown unit {sensor.unit}; known are {', '.join(UNIT_FACTORS)}"
        )
    unit, factor = UNIT_FACTORS[sensor.unit]
    for name in sensor.channels:
        if wanted.get(name, unit) != unit:
            raise ValueError(
                f"{where}: its unit {sensor.unit} becomes {unit}, but {name} of the windows is in "
                f"{wanted[name]}; correct the sensor's unit or the windows' units"
            )
    return read_sensor(
        sensor,
        unit,
        factor,
        rate_hz=rate_hz,
        limits=limits,
        where=where,
        nominal_rate_hz=device.nominal_rate_hz,
    )


def _places(sensor: Sensor, channels: Sequence[str]) -> list[tuple[int, int]]:
    """Columns of the sensor that are wanted, each with its row in the windows."""
    return [
        (column, list(channels).index(name))
        for column, name in enumerate(sensor.channels)
        if name in channels
    ]


class _SensorSegment(NamedTuple):
    """A segment of one sensor: start and stop on the grid, first row in the sensor's column."""

    start: int
    stop: int
    row: int


@dataclass(frozen=True)
class _Resampled:
    """A sensor on the grid: rows of values ``(c,)`` and saturation, in segments by time."""

    rows: Column
    segments: list[_SensorSegment]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows by grid indices, which lie in one segment."""
        place = bisect.bisect_right(self.segments, start, key=lambda segment: segment.start) - 1
        first = self.segments[place].row - self.segments[place].start
        return self.rows.read(first + start, first + stop)


def _resample(data: SensorData, rate_hz: float) -> _Resampled:
    """Each segment of a sensor on the grid."""
    resampler = Resampler(data.period_s, rate_hz)
    width = len(data.report.channels)
    column = Column(np.dtype([("values", "f4", (width,)), ("saturated", "?")]))
    segments = []
    for first, last in data.segments:
        row, start = len(column), None
        for begin in range(first, last, BLOCK_ROWS):
            end = min(begin + BLOCK_ROWS, last)
            low = max(first, begin - resampler.margin)
            block = data.rows.read(low, min(last, end + resampler.margin))
            time_s = block["time_s"]
            # Up to the next block's first sample, or to the last sample of the segment.
            stop = resampler.first(time_s[end - low]) if end < last else resampler.stop(time_s[-1])
            grid = range(resampler.first(time_s[begin - low]), stop)
            start = grid.start if start is None else start
            rows = np.zeros(len(grid), column.dtype)
            rows["values"] = resampler(time_s, block["values"], grid)
            rows["saturated"] = _mark(time_s[block["saturated"]], grid, data.period_s, rate_hz)
            column.append(rows)
        if len(column) > row:
            assert start is not None
            segments.append(_SensorSegment(start, start + len(column) - row, row))
    return _Resampled(column, segments)


def _mark(time_s: np.ndarray, grid: range, period_s: float, rate_hz: float) -> np.ndarray:
    """Grid points within a period, of the samples or of the grid, of one of the times."""
    reach = max(period_s * rate_hz, 1.0)
    first = np.ceil(time_s * rate_hz - reach).astype(np.int64) - grid.start
    after = np.floor(time_s * rate_hz + reach).astype(np.int64) - grid.start + 1
    change = np.zeros(len(grid) + 1, np.int64)
    np.add.at(change, np.clip(first, 0, len(grid)), 1)
    np.add.at(change, np.clip(after, 0, len(grid)), -1)
    return np.asarray(change.cumsum()[:-1] > 0)


def _join(
    sensors: Sequence[_Resampled], places: Sequence[list[tuple[int, int]]], channels: int
) -> tuple[Segment, ...]:
    """The segments where every sensor has a signal, with the channels in their order."""
    spans = functools.reduce(
        _common,
        ([(segment.start, segment.stop) for segment in sensor.segments] for sensor in sensors),
    )
    values = Column(np.dtype(("f4", (channels,))))
    saturated = Column(np.dtype("?"))
    for span in spans:
        for start in range(*span, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, span[1])
            block = np.empty((stop - start, channels), np.float32)
            marks = np.zeros(stop - start, bool)
            for sensor, wanted in zip(sensors, places, strict=True):
                rows = sensor.read(start, stop)
                for column, place in wanted:
                    block[:, place] = rows["values"][:, column]
                marks |= rows["saturated"]
            values.append(block)
            saturated.append(marks)
    bounds = np.cumsum([0, *(stop - start for start, stop in spans)]).tolist()
    all_values, all_marks = values.view(), saturated.view()
    return tuple(
        Segment(span[0], all_values[first:last].T, all_marks[first:last])
        for span, (first, last) in zip(spans, itertools.pairwise(bounds), strict=True)
    )


def _common(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intersections of two ordered lists of disjoint spans."""
    common, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        start, stop = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < stop:
            common.append((start, stop))
        i, j = (i + 1, j) if left[i][1] <= right[j][1] else (i, j + 1)
    return common
