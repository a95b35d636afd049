"""Rows that are no measurements although they look like some: zeros, values held, lone spikes.

rows, found, times_s = without_faults(rows, "m/s2", limits)

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
from shards.signal.sample_buffer import Column, Median
from shards.signal.spikes import find_spikes, prediction_error

AXES = 3
FEWEST_ROWS = 20  # of a sensor, for its rows to be judged
FEWEST_HELD = 3  # rows of one value that may be a fault, where values are not written repeatedly
LONG_HELD = 5  # rows that a fine sensor never repeats by chance, unless it is at rest
COARSE = {"m/s2": 0.03, "rad/s": 0.02}  # resolution of sensors that may repeat a value at rest
COARSE_FACTOR = 10.0  # by which such a sensor may hold a value longer
LEAST_STEPS = 8.0  # of the resolution: a change that a sensor at rest does not make
USUAL_STEPS = 2.0  # of the usual change from row to row
HELD_SHARE = 0.3  # of rows that repeat the row before: each value is written several times


class Found(NamedTuple):
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
class _Character:
    """How a sensor's values change from row to row.

    resolution: least change of each axis ``(3,)``. usual: median change of the axis that changes
    most, repetitions left out. missed: size of the prediction error of each axis that 99 % of the
    rows do not exceed, the faulty ones aside. repeats: rows equal to the one before. runs: of one
    value, two rows or more, as arrays of ``_RUN``.
    """

    resolution: np.ndarray = field(default_factory=lambda: np.full(AXES, np.inf))
    usual: float = 0.0
    missed: np.ndarray = field(default_factory=lambda: np.zeros(AXES))
    repeats: int = 0
    runs: list[np.ndarray] = field(default_factory=list)


def without_faults(
    rows: Column, unit: str, limits: SensorLimits
) -> tuple[Column, Found, np.ndarray]:
    """Ordered rows without the faulty ones, how many those are, and their times."""
    if unit not in COARSE or rows.dtype["values"].shape != (AXES,) or len(rows) < FEWEST_ROWS:
        return rows, Found(), np.empty(0)
    character = _characterise(rows)
    zeros, held = _held(character, len(rows), unit, limits)
    spikes = find_spikes(rows, character.missed, unit, limits.spike_ratio)
    if not (len(zeros) or len(held) or len(spikes)):
        return rows, Found(), np.empty(0)
    kept, times, counts = Column(rows.dtype), [], np.zeros(3, np.int64)
    carried_fresh = False
    for first, block in _numbered(rows):
        kinds = np.zeros(len(block), np.int8)
        for kind, spans in ((3, spikes), (2, held), (1, zeros)):
            kinds[_inside(spans, first, len(block))] = kind
        keep = kinds == 0
        counts += np.bincount(kinds, minlength=4)[1:]
        times.append(block["time_s"][~keep])
        block = block.copy()
        carried_fresh = _pass_on_fresh(block, keep, carried_fresh)
        kept.append(block[keep])
    return kept, Found(*counts.tolist()), np.concatenate(times)


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


def _pass_on_fresh(block: np.ndarray, keep: np.ndarray, carried: bool) -> bool:
    """Mark the first kept row after a dropped one that was fresh; whether one is still to come."""
    for row in np.flatnonzero(block["fresh"] & ~keep).tolist():
        later = np.flatnonzero(keep[row:])
        if len(later):
            block["fresh"][row + later[0]] = True
    kept = np.flatnonzero(keep)
    if carried and len(kept):
        block["fresh"][kept[0]] = True
    after = block["fresh"][kept[-1] + 1 :] if len(kept) else block["fresh"]
    return bool(after.any()) or (carried and not len(kept))


def _characterise(rows: Column) -> _Character:
    """One pass over the rows."""
    found, usual = _Character(), Median()
    missed = [Median() for _ in range(AXES)]
    before, start, entered = np.empty(0, rows.dtype), 0, 0.0
    start_s = float(rows.read(0, 1)["time_s"][0])
    for first, block in _numbered(rows):
        near = np.concatenate([before[-4:], block])["values"].astype(np.float64)
        for median, error in zip(missed, prediction_error(near).T, strict=True):
            median.add(np.abs(error))
        both = np.concatenate([before[-1:], block])
        values = both["values"].astype(np.float64)
        changes = np.abs(np.diff(values, axis=0))
        change = changes.max(axis=1, initial=0.0)
        found.repeats += int((change == 0).sum())
        usual.add(change[change > 0])
        least = np.where(changes > 0, changes, np.inf).min(axis=0, initial=np.inf)
        found.resolution = np.fmin(found.resolution, least)
        ends = np.flatnonzero(change > 0)  # last row of a run, in `both`
        stops = ends + first + (0 if len(before) else 1)
        edges = np.concatenate([[start], stops])
        begin_s = np.concatenate([[start_s], both["time_s"][ends + 1]])
        runs = np.zeros(len(stops), _RUN)
        runs["start"], runs["stop"] = edges[:-1], edges[1:]
        runs["lasts_s"] = both["time_s"][ends] - begin_s[:-1]
        runs["zero"], runs["after"] = ~values[ends].any(axis=1), change[ends]
        entries = np.concatenate([[entered], change[ends]])
        runs["before"] = entries[:-1]
        found.runs.append(runs[runs["stop"] - runs["start"] > 1])
        before, start, start_s = block, int(edges[-1]), float(begin_s[-1])
        entered = float(entries[-1])
    end = rows.read(len(rows) - 1, len(rows))
    lasts_s = float(end["time_s"][0]) - start_s
    last = (start, len(rows), lasts_s, not end["values"].any(), entered, 0.0)
    found.runs.append(np.array([last], _RUN)[: len(rows) - start - 1])
    found.usual = usual.value()
    # Each spike spoils the prediction of the rows next to it too.
    found.missed = np.array([min(one.value(0.99), 4 * one.value(0.9)) for one in missed])
    return found


def _held(
    character: _Character, rows: int, unit: str, limits: SensorLimits
) -> tuple[np.ndarray, np.ndarray]:
    """Spans of zeros, and of values that are repeated (all rows but the first), ``(n, 2)`` each."""
    runs = np.concatenate(character.runs)
    resolution = float(character.resolution.min())
    longest_s = limits.repeat_s * (COARSE_FACTOR if resolution > COARSE[unit] else 1.0)
    rows_held = runs["stop"] - runs["start"]
    fine = LEAST_STEPS * resolution < character.usual
    # After values that were held the signal is elsewhere; at rest it is where it was.
    least, usual = LEAST_STEPS * resolution, USUAL_STEPS * character.usual
    held = (rows_held >= FEWEST_HELD) & (runs["after"] > max(least, usual))
    if fine:
        held |= (rows_held >= LONG_HELD) & (runs["after"] > least)
        if character.repeats > HELD_SHARE * rows:  # each value is written several times
            held[:] = True
    held |= runs["lasts_s"] >= longest_s
    jump = np.maximum(runs["before"], runs["after"])
    held |= runs["zero"] & (rows_held >= FEWEST_HELD) & (jump > max(least, character.usual / 2))
    spans = np.stack([runs["start"], runs["stop"]], axis=1)
    # A gyroscope may give zero; gravity never is.
    runs["zero"] &= (rows_held >= FEWEST_HELD) if unit == "m/s2" else held
    return spans[runs["zero"]], spans[held & ~runs["zero"]] + np.array([1, 0])
