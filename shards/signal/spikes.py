"""Lone spikes among the samples of a sensor, and rows left over from before the recording.

A spike is one to three samples that are far from the values which their neighbours on both sides
predict. The neighbours themselves are as predicted, and change little. Impacts are not like that:
the sensor's own filter spreads them over several samples. What counts as far depends on the
sensor's own signal.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from shards.signal.axes import over_axes
from shards.signal.sample_buffer import Column

LEAST_HEIGHT = {"m/s2": 1.0, "rad/s": 0.5}
MOST_ROWS = 3  # of a spike
MOST_SHARE = 0.05  # of rows on or next to spikes; if there are more, they are the signal
MOST_NEIGHBOUR_ERROR = 0.15  # of a spike's height: prediction error of the rows next to it
OTHER_SPIKE_STEPS = 2  # row-to-row changes that another spike nearby makes
MOST_NEIGHBOUR_STEP = 0.25  # of a spike's height: row-to-row change of other rows nearby
LEFT_OVER_ROWS = 10  # at most, at the beginning of a recording
SETTLED_ROWS = 20  # that follow, of the signal itself
LEAST_JUMP_RATIO = 5.0  # of the jump from left-over rows to the signal, to its usual changes
REACH_ROWS = 8  # read on each side of a spike


def prediction_error(values: np.ndarray) -> np.ndarray:
    """How far each row but the outer two lies off a cubic through the two on both sides.

    values ``(n, c)``; gives ``(n - 4, c)``, none for fewer than five rows.
    """
    if len(values) < 5:
        return np.empty((0, values.shape[1]))
    predicted = (4 * (values[1:-3] + values[3:-1]) - values[:-4] - values[4:]) / 6
    return np.asarray(values[2:-2] - predicted)


def find_spikes(rows: Column, usual_error: np.ndarray, unit: str, ratio: float) -> np.ndarray:
    """Spans ``(n, 2)`` (first row, row after the last) of spikes of ordered rows.

    usual_error ``(c,)``: size of each axis' prediction error that 99 % of the rows do not exceed.
    ratio: to it, from which on a row is far off.
    """
    limit = np.maximum(ratio * usual_error, LEAST_HEIGHT[unit])
    candidates = _candidates(rows, limit)
    if len(candidates) > MOST_SHARE * len(rows):
        candidates = []
    spans: list[tuple[int, int]] = []
    for row in candidates:
        if not (spans and row < spans[-1][1] + 1):
            span = _spike_at(rows, row, limit)
            if span:
                spans.append(span)
    return np.array([*_left_over(rows, limit), *spans], np.int64).reshape(-1, 2)


def _candidates(rows: Column, limit: np.ndarray) -> list[int]:
    """Rows whose prediction error is above half the limit, and the largest nearby."""
    found: list[int] = []
    before, first = np.empty(0, rows.dtype), 0
    for block in rows.blocks():
        both = np.concatenate([before[-4:], block])
        error = np.abs(prediction_error(both["values"].astype(np.float64))) / limit
        worst = over_axes(np.maximum, error)
        offset = first - len(before[-4:]) + 2
        # Next to a spike of two or three rows the prediction is off as well.
        found += (np.flatnonzero(worst > 0.5) + offset).tolist()
        first += len(block)
        before = block
    return found


def _spike_at(rows: Column, row: int, limit: np.ndarray) -> tuple[int, int] | None:
    """The spike around this row, if there is one: the shortest span that explains it."""
    low = max(row - REACH_ROWS, 0)
    near = rows.read(low, row + REACH_ROWS + 1)
    values = near["values"].astype(np.float64)
    # As lists, since a few entries at a time are asked for.
    clock_set, saturated = near["clock_set"].tolist(), near["saturated"].tolist()
    place = row - low
    for length in range(1, MOST_ROWS + 1):
        for start in range(place - length + 1, place + 1):
            stop = start + length
            if start < 4 or stop > len(values) - 4 or any(clock_set[start - 3 : stop + 4]):
                continue
            if any(saturated[start:stop]):
                continue  # counted as saturated
            spike = _span_error(values, start, stop)
            height = np.abs(spike).max(axis=0)
            axes = (np.abs(spike) > limit).all(axis=0)
            if not axes.any():
                continue
            outside = np.delete(values, np.s_[start:stop], axis=0)
            steps = np.sort(np.abs(np.diff(outside, axis=0)).max(axis=1))
            if steps[-1 - OTHER_SPIKE_STEPS] > MOST_NEIGHBOUR_STEP * height[axes].max():
                continue  # much moves here: an impact
            neighbours = np.abs(
                np.stack([_neighbour_error(values, start, stop, n) for n in (-1, 1)])
            )
            if (
                neighbours[:, axes]
                <= np.maximum(MOST_NEIGHBOUR_ERROR * height[axes], limit[axes] / 4)
            ).all():
                return low + start, low + stop
    return None


def _span_error(values: np.ndarray, start: int, stop: int) -> np.ndarray:
    """How far rows ``start`` to ``stop`` lie off the cubic through two rows on both sides."""
    length = stop - start
    weights = _lagrange((-2, -1, length, length + 1), tuple(range(length)))
    places = (start - 2, start - 1, stop, stop + 1)
    return np.asarray(values[start:stop] - weights @ values.take(places, axis=0))


def _neighbour_error(values: np.ndarray, start: int, stop: int, side: int) -> np.ndarray:
    """How far the row before a span (side -1), or after it (1), lies off its other neighbours."""
    row = start - 1 if side < 0 else stop
    left, right = (start - 3, stop) if side < 0 else (start - 2, stop + 1)
    places = (left, left + 1, right, right + 1)
    weights = _lagrange(tuple(place - row for place in places), (0,))
    return np.asarray(values[row] - (weights @ values.take(places, axis=0))[0])


@cache
def _lagrange(places: tuple[int, ...], wanted: tuple[int, ...]) -> np.ndarray:
    """Weights ``(m, 4)`` of values at ``places`` for those of their cubic at ``wanted``.

    Rows are counted from the spike, so there are few different weights, and each is made once.
    """
    weights = np.ones((len(wanted), len(places)))
    for column, place in enumerate(places):
        for other in places[:column] + places[column + 1 :]:
            weights[:, column] *= (np.array(wanted) - other) / (place - other)
    return weights


def _left_over(rows: Column, limit: np.ndarray) -> list[tuple[int, int]]:
    """Rows at the beginning, up to a jump to the signal that follows."""
    near = rows.read(0, LEFT_OVER_ROWS + SETTLED_ROWS + 1)
    head = near["values"].astype(np.float64)
    changes = np.abs(np.diff(head, axis=0))
    settled = changes[LEFT_OVER_ROWS:].max(axis=0, initial=0.0)
    jumps = (changes > np.maximum(limit, LEAST_JUMP_RATIO * settled)).any(axis=1)
    last = np.flatnonzero(jumps[:LEFT_OVER_ROWS])
    if not len(last) or len(head) < LEFT_OVER_ROWS + SETTLED_ROWS:
        return []
    stop = int(last[-1]) + 1
    return [] if near["saturated"][:stop].any() else [(0, stop)]
