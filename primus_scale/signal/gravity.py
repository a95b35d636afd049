"""Gravity in an accelerometer's samples: its size, and whether it turns with the gyroscope.

While a device turns with w (rad/s), the direction of gravity in it changes by -w x g a second. Over
short times in which little else moves the device, changes of the low-passed accelerometer are
compared with the gyroscope's. Their regression gives 1, or 57.3 where degrees and radians were
mixed up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CALM_CELL_S = 1.0
MOST_CALM_DEVIATION = 0.25  # of a second, over its mean vector's length
FEWEST_CALM_CELLS = 3
FEWEST_CELL_ROWS = 4
MEAN_CELL_S = 5.0  # over which motion averages out, and gravity does not

TURN_CELL_S = 0.5  # over which both sensors are averaged, and gravity's change is taken
MOST_UNSTEADINESS = 0.05  # deviation from a steady turn within a cell, over its mean's length
MOST_LENGTH_CHANGE = 0.05  # of the means of two cells; more is not turning alone
LEAST_DEG, FEWEST_CHANGES = 180.0, 20  # of turning in all, and of changes compared
LEAST_CORRELATION = 0.6  # of gravity and gyroscope; below it the slope says nothing
CORRELATION_MARGIN = 0.05  # axes along gravity, or at rest, can be named in any way

Axes = tuple[tuple[int, int], ...]  # of x, y and z: the column that it is, and its sign
NAMED_AXES: Axes = ((0, 1), (1, 1), (2, 1))  # as the columns are named


def calm_lengths(time_s: np.ndarray, acc: np.ndarray) -> list[float]:
    """Length of the mean vector of each calm second of ``acc (n, 3)``, in its unit.

    A second is calm in which an accelerometer is still or turns slowly: vigorous exercise adds
    acceleration that does not average out. The threshold is relative, so that it holds in wrong
    units as well.
    """
    values = acc.astype(np.float64)
    first, counts, mean = _means(time_s, values, CALM_CELL_S)
    square = np.add.reduceat(values**2, first).sum(axis=1) / counts
    length = np.linalg.norm(mean, axis=1)
    deviation = np.sqrt(np.maximum(square - length**2, 0.0))
    calm = (counts >= FEWEST_CELL_ROWS) & (deviation < MOST_CALM_DEVIATION * length)
    return length[calm].tolist()


def mean_lengths(time_s: np.ndarray, acc: np.ndarray) -> list[float]:
    """Length of the mean vector of every five seconds of ``acc (n, 3)``, in its unit."""
    _, _, mean = _means(time_s, acc.astype(np.float64), MEAN_CELL_S)
    return np.linalg.norm(mean, axis=1).tolist()


def _means(
    time_s: np.ndarray, values: np.ndarray, cell_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row, number of rows and mean ``(m, 3)`` of each cell of ``values (n, 3)``."""
    cells = np.floor(time_s / cell_s)
    first = np.flatnonzero(np.diff(cells, prepend=np.nan) != 0)
    counts = np.diff(np.append(first, len(values)))
    return first, counts, np.add.reduceat(values, first) / counts[:, None]


def visible_gravity(lengths: list[float]) -> float | None:
    """Median of ``calm_lengths``; None where fewer than three seconds are calm."""
    return float(np.median(lengths)) if len(lengths) >= FEWEST_CALM_CELLS else None


class Turns(NamedTuple):
    """Pairs of calm cells: change of gravity's direction, its middle, and the turn in rad.

    Each ``(n, 3)`` float64.
    """

    change: np.ndarray
    middle: np.ndarray
    turn: np.ndarray

    @staticmethod
    def cat(parts: list[Turns]) -> Turns:
        """All pairs of several stretches."""
        if not parts:
            return Turns(*(np.empty((0, 3)) for _ in range(3)))
        return Turns(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class TurningFit(NamedTuple):
    """Gravity's turning over the gyroscope's.

    slope: with ``axes``, the names and signs of the gyroscope's axes that agree best (of those that
    agree about as well, the ones with the fewest changes). correlation: with the axes as named.
    """

    slope: float
    correlation: float
    axes: Axes
    best_correlation: float
    turned_deg: float


def find_turns(acc: np.ndarray, gyr: np.ndarray, rate_hz: float) -> Turns:
    """The pairs of calm cells in a stretch of ``acc`` and ``gyr``, ``(3, n)`` at ``rate_hz``."""
    length = max(round(TURN_CELL_S * rate_hz), 4)
    count = acc.shape[1] // length
    if count < 2:
        return Turns.cat([])
    values = np.concatenate([acc, gyr])[:, : count * length].astype(np.float64)
    cells = values.reshape(6, count, length)
    mean = cells.mean(axis=2).T
    gravity, turning = mean[:, :3], mean[:, 3:]
    size = np.linalg.norm(gravity, axis=1)
    calm = (_unsteady(cells[:3]) < MOST_UNSTEADINESS * size) & (size > 0)
    near = np.abs(size[1:] - size[:-1]) < MOST_LENGTH_CHANGE * size[:-1]
    kept = calm[1:] & calm[:-1] & near
    unit = gravity / np.maximum(size, 1e-12)[:, None]
    return Turns(
        np.diff(unit, axis=0)[kept],
        ((unit[1:] + unit[:-1]) / 2)[kept],
        ((turning[1:] + turning[:-1]) / 2 * (length / rate_hz))[kept],
    )


def fit_turning(turns: Turns) -> TurningFit | None:
    """Gravity's turning against the gyroscope's; None where there is too little turning."""
    change, middle, turn = turns
    turned_deg = math.degrees(float(np.linalg.norm(change, axis=1).sum()))
    if turned_deg < LEAST_DEG or len(change) < FEWEST_CHANGES:
        return None
    fits = {axes: _fit(change, -np.cross(_renamed(turn, axes), middle)) for axes in _all_axes()}
    most = max(correlation for _, correlation in fits.values())
    if most < LEAST_CORRELATION:
        return None
    best = min(
        (
            axes
            for axes, (_, correlation) in fits.items()
            if correlation >= most - CORRELATION_MARGIN
        ),
        key=lambda axes: sum(one != own for one, own in zip(axes, NAMED_AXES, strict=True)),
    )
    return TurningFit(fits[best][0], fits[NAMED_AXES][1], best, fits[best][1], turned_deg)


def _all_axes() -> Iterator[Axes]:
    """Every way to name three axes, with signs."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield tuple(zip(order, signs, strict=True))


def _renamed(turn: np.ndarray, axes: Axes) -> np.ndarray:
    return np.stack([sign * turn[:, axis] for axis, sign in axes], axis=1)


def _fit(change: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Slope of the change over the expected one, and their correlation, both about zero."""
    above, size = float((change * expected).sum()), float((expected**2).sum())
    if not size:
        return 0.0, 0.0
    return above / size, above / math.sqrt(size * float((change**2).sum()))


def _unsteady(cells: np.ndarray) -> np.ndarray:
    """Deviation of each cell from a straight line, all axes together: ``(3, n, length)``."""
    length = cells.shape[2]
    place = np.arange(length) - (length - 1) / 2
    centred = cells - cells.mean(axis=2, keepdims=True)
    slope = centred @ place / (place @ place)
    left = centred - slope[..., None] * place
    return np.asarray(np.sqrt((left**2).mean(axis=2).sum(axis=0)))
