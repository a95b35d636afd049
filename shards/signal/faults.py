"""Rows that are no measurements although they look like some: zeros, repeated values, lone spikes.

rows, counts, times_s = without_faults(rows, "m/s2", limits)

A recorder that sleeps writes zeros, one that stands repeats its last values exactly, and converters
and left-over buffers give spikes that no body makes. Only accelerometers and gyroscopes of three
axes are judged; signals of muscles or light may do all of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from shards.settings import SensorLimits
from shards.signal.axes import over_axes
from shards.signal.sample_buffer import Column, Median
from shards.signal.spikes import find_spikes, prediction_error

AXES = 3
FEWEST_ROWS = 20  # of a sensor, for its rows to be judged
FEWEST_RUN_ROWS = 3  # of one value, for them to be a fault
LONG_RUN_ROWS = 5  # of one value: a fine sensor repeats it so often only at rest
# Sensors of coarser resolution may repeat a value at rest.
COARSE_RESOLUTION = {"m/s2": 0.03, "rad/s": 0.02}
COARSE_FACTOR = 10.0  # by which such a sensor may repeat a value longer
LEAST_CHANGE_STEPS = 8.0  # of the resolution: a change that a sensor at rest does not make
USUAL_CHANGES = 2.0  # of the usual change from row to row
REPEATS_SHARE = 0.3  # of rows that repeat the row before: each value is written several times


class FaultCounts(NamedTuple):
    """Rows left out, by fault."""

    zeros: int = 0
    repeated: int = 0
    spikes: int = 0


# Rows start to stop (excluded) of one value, seconds they last, whether it is zero, and the changes
# before and after it, of the axis that changes most.
_RUN = np.dtype(
    [
        *(("start", "i8"), ("stop", "i8"), ("lasts_s", "f8"), ("zero", "?")),
        *(("before", "f8"), ("after", "f8")),
    ]
)


@dataclass
class _ChangeProfile:
    """How a sensor's values change from row to row.

    resolution: least change of each axis ``(3,)``. usual: median change of the axis that changes
    most, repetitions left out. usual_error: size of each axis' prediction error that 99 % of the
    rows do not exceed, without the faulty ones. repeats: rows equal to the one before. runs: of one
    value, two rows or more, as arrays of ``_RUN``.
    """

    resolution: np.ndarray = field(default_factory=lambda: np.full(AXES, np.inf))
    usual: float = 0.0
    usual_error: np.ndarray = field(default_factory=lambda: np.zeros(AXES))
    repeats: int = 0
    runs: list[np.ndarray] = field(default_factory=list)


def without_faults(
    rows: Column, unit: str, limits: SensorLimits
) -> tuple[Column, FaultCounts, np.ndarray]:
    """Ordered rows without the faulty ones, how many those are, and their times."""
    if (
        unit not in COARSE_RESOLUTION
        or rows.dtype["values"].shape != (AXES,)
        or len(rows) < FEWEST_ROWS
    ):
        return rows, FaultCounts(), np.empty(0)
    profile = _profile_changes(rows)
    zeros, repeated = _repeated_spans(profile, len(rows), unit, limits)
    spikes = find_spikes(rows, profile.usual_error, unit, limits.spike_ratio)
    if not (len(zeros) or len(repeated) or len(spikes)):
        return rows, FaultCounts(), np.empty(0)
    kept, times, counts = Column(rows.dtype), [], np.zeros(3, np.int64)
    pending = False
    for first, block in _numbered(rows):
        kinds = np.zeros(len(block), np.int8)
        for kind, spans in ((3, spikes), (2, repeated), (1, zeros)):
            kinds[_inside(spans, first, len(block))] = kind
        keep = kinds == 0
        counts += np.bincount(kinds, minlength=4)[1:]
        times.append(block["time_s"][~keep])
        block = block.copy()
        pending = _pass_on_clock_set(block, keep, pending)
        kept.append(block[keep])
    return kept, FaultCounts(*counts.tolist()), np.concatenate(times)


def _numbered(rows: Column) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks, each with the number of its first row."""
    first = 0
    for block in rows.blocks():
        yield first, block
        first += len(block)


def _inside(spans: np.ndarray, first: int, count: int) -> np.ndarray:
    """Which of ``count`` rows from ``first`` on lie in one of the spans ``(n, 2)``."""
    near = spans[(spans[:, 0] < first + count) & (spans[:, 1] > first)] - first
    change = np.zeros(count + 1, np.int64)
    np.add.at(change, np.maximum(near[:, 0], 0), 1)
    np.add.at(change, np.minimum(near[:, 1], count), -1)
    return np.asarray(change.cumsum()[:-1] > 0)


def _pass_on_clock_set(block: np.ndarray, keep: np.ndarray, pending: bool) -> bool:
    """Pass ``clock_set`` of dropped rows to the next kept row; whether one is still to come."""
    for row in np.flatnonzero(block["clock_set"] & ~keep).tolist():
        later = np.flatnonzero(keep[row:])
        if len(later):
            block["clock_set"][row + later[0]] = True
    kept = np.flatnonzero(keep)
    if pending and len(kept):
        block["clock_set"][kept[0]] = True
    after = block["clock_set"][kept[-1] + 1 :] if len(kept) else block["clock_set"]
    return bool(after.any()) or (pending and not len(kept))


def _profile_changes(rows: Column) -> _ChangeProfile:
    """One pass over the rows."""
    profile, usual = _ChangeProfile(), Median()
    errors = [Median() for _ in range(AXES)]
    before, start, entered = np.empty(0, rows.dtype), 0, 0.0
    start_s = float(rows.read(0, 1)["time_s"][0])
    for first, block in _numbered(rows):
        near = np.concatenate([before[-4:], block])["values"].astype(np.float64)
        for median, error in zip(errors, prediction_error(near).T, strict=True):
            median.add(np.abs(error))
        both = np.concatenate([before[-1:], block])
        values = both["values"].astype(np.float64)
        changes = np.abs(np.diff(values, axis=0))
        change = over_axes(np.maximum, changes)
        profile.repeats += int((change == 0).sum())
        usual.add(change[change > 0])
        least = [axis.min(where=axis > 0, initial=np.inf) for axis in changes.T]
        profile.resolution = np.fmin(profile.resolution, least)
        ends = np.flatnonzero(change > 0)  # last row of a run, in `both`
        stops = ends + first + (0 if len(before) else 1)
        edges = np.concatenate([[start], stops])
        begin_s = np.concatenate([[start_s], both["time_s"][ends + 1]])
        entries = np.concatenate([[entered], change[ends]])
        long = np.flatnonzero(np.diff(edges) > 1)
        runs = np.zeros(len(long), _RUN)
        runs["start"], runs["stop"] = edges[long], edges[long + 1]
        runs["lasts_s"] = both["time_s"][ends[long]] - begin_s[long]
        runs["zero"] = ~values[ends[long]].any(axis=1)
        runs["before"], runs["after"] = entries[long], entries[long + 1]
        profile.runs.append(runs)
        before, start, start_s = block, int(edges[-1]), float(begin_s[-1])
        entered = float(entries[-1])
    end = rows.read(len(rows) - 1, len(rows))
    lasts_s = float(end["time_s"][0]) - start_s
    last = (start, len(rows), lasts_s, not end["values"].any(), entered, 0.0)
    profile.runs.append(np.array([last], _RUN)[: len(rows) - start - 1])
    profile.usual = usual.value()
    # Each spike spoils the prediction of the rows next to it too.
    profile.usual_error = np.array([min(one.value(0.99), 4 * one.value(0.9)) for one in errors])
    return profile


def _repeated_spans(
    profile: _ChangeProfile, rows: int, unit: str, limits: SensorLimits
) -> tuple[np.ndarray, np.ndarray]:
    """Spans of zeros, and of values that are repeated (all rows but the first), ``(n, 2)`` each."""
    runs = np.concatenate(profile.runs)
    resolution = float(profile.resolution.min())
    longest_s = limits.repeat_s * (COARSE_FACTOR if resolution > COARSE_RESOLUTION[unit] else 1.0)
    run_rows = runs["stop"] - runs["start"]
    fine = LEAST_CHANGE_STEPS * resolution < profile.usual
    # After repeated values the signal is elsewhere; at rest it is where it was.
    least, usual = LEAST_CHANGE_STEPS * resolution, USUAL_CHANGES * profile.usual
    repeated = (run_rows >= FEWEST_RUN_ROWS) & (runs["after"] > max(least, usual))
    if fine:
        repeated |= (run_rows >= LONG_RUN_ROWS) & (runs["after"] > least)
        if profile.repeats > REPEATS_SHARE * rows:  # each value is written several times
            repeated[:] = True
    repeated |= runs["lasts_s"] >= longest_s
    jump = np.maximum(runs["before"], runs["after"])
    repeated |= (
        runs["zero"] & (run_rows >= FEWEST_RUN_ROWS) & (jump > max(least, profile.usual / 2))
    )
    spans = np.stack([runs["start"], runs["stop"]], axis=1)
    # A gyroscope may give zero; gravity never is.
    runs["zero"] &= (run_rows >= FEWEST_RUN_ROWS) if unit == "m/s2" else repeated
    return spans[runs["zero"]], spans[repeated & ~runs["zero"]] + np.array([1, 0])
