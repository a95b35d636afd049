"""Does gravity turn as fast as the gyroscope says? Wrong units, signs and axes show here.

report = measure_tilt(conditioned)  # None: no gyroscope, or too little turning

While a device turns with w (rad/s), the direction of gravity in it changes by -w x g a second. Over
short times in which little else moves the device, changes of the low-passed accelerometer are
compared with the gyroscope's. Their regression gives 1, or 57.3 where degrees and radians were
mixed up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from shards.recording import ACCELEROMETER, GYROSCOPE
from shards.report import TiltReport
from shards.signal.condition import Conditioned, Segment

CELL_S = 0.5  # over which both are averaged, and gravity's change is taken
MOST_UNSTEADINESS = 0.05  # deviation from a steady turn within a cell, over its mean's length
MOST_LENGTH_CHANGE = 0.05  # of the means of two cells; more is not turning alone
LEAST_DEG, FEWEST_CHANGES = 180.0, 20  # of turning in all, and of changes compared
LEAST_CORRELATION = 0.6  # of gravity and gyroscope; below it the slope says nothing
CORRELATION_MARGIN = 0.05  # axes along gravity, or at rest, can be named in any way
BLOCK_SAMPLES = 2**15  # grid points at once
NAMED_AXES = ((0, 1), (1, 1), (2, 1))  # each axis as the reader named it, with its sign


def measure_tilt(signal: Conditioned) -> TiltReport | None:
    """Gravity's turning against the gyroscope's; None where there is too little turning."""
    if not {*ACCELEROMETER, *GYROSCOPE} <= {*signal.channels} or not signal.segments:
        return None
    cells = [cell for segment in signal.segments for cell in _cells(signal, segment)]
    change = np.concatenate([cell[0] for cell in cells] or [np.empty((0, 3))])
    if not len(change):
        return None
    middle, turn = (np.concatenate([cell[n] for cell in cells]) for n in (1, 2))
    turned_deg = math.degrees(float(np.linalg.norm(change, axis=1).sum()))
    if turned_deg < LEAST_DEG or len(change) < FEWEST_CHANGES:
        return None
    fits = {axes: _fit(change, -np.cross(_renamed(turn, axes), middle)) for axes in _all_axes()}
    most = max(correlation for _, correlation in fits.values())
    if most < LEAST_CORRELATION:
        return None
    # Of those that agree about as well, the one with the fewest changes.
    best = min(
        (
            axes
            for axes, (_, correlation) in fits.items()
            if correlation >= most - CORRELATION_MARGIN
        ),
        key=lambda axes: sum(one != own for one, own in zip(axes, NAMED_AXES, strict=True)),
    )
    x, y, z = (f"{'+' if sign > 0 else '-'}{'xyz'[axis]}" for axis, sign in best)
    return TiltReport(
        slope=float(f"{fits[best][0]:.4g}"),
        correlation=round(fits[NAMED_AXES][1], 4),
        axes=(x, y, z),
        best_correlation=round(fits[best][1], 4),
        turned_deg=round(turned_deg, 1),
    )


_Axes = tuple[tuple[int, int], ...]


def _all_axes() -> Iterator[_Axes]:
    """Every way to name three axes, with signs."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield tuple(zip(order, signs, strict=True))


def _renamed(turn: np.ndarray, axes: _Axes) -> np.ndarray:
    return np.stack([sign * turn[:, axis] for axis, sign in axes], axis=1)


def _fit(change: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Slope of the change over the expected one, and their correlation, both about zero."""
    above, size = float((change * expected).sum()), float((expected**2).sum())
    if not size:
        return 0.0, 0.0
    return above / size, above / math.sqrt(size * float((change**2).sum()))


def _cells(
    signal: Conditioned, segment: Segment
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of calm cells: change of gravity's direction ``(n, 3)``, its middle, and the turn, rad.

    In blocks, so that no whole recording is in memory.
    """
    rows = [signal.channels.index(name) for name in (*ACCELEROMETER, *GYROSCOPE)]
    length = max(round(CELL_S * signal.rate_hz), 4)
    block = BLOCK_SAMPLES // length * length
    for start in range(0, segment.values.shape[1], block):
        values = segment.values[rows, start : start + block].astype(np.float64)
        count = values.shape[1] // length
        if count < 2:
            continue
        cells = values[:, : count * length].reshape(6, count, length)
        mean = cells.mean(axis=2).T
        gravity, turning = mean[:, :3], mean[:, 3:]
        size = np.linalg.norm(gravity, axis=1)
        calm = (_unsteady(cells[:3]) < MOST_UNSTEADINESS * size) & (size > 0)
        near = np.abs(size[1:] - size[:-1]) < MOST_LENGTH_CHANGE * size[:-1]
        kept = calm[1:] & calm[:-1] & near
        unit = gravity / np.maximum(size, 1e-12)[:, None]
        seconds = length / signal.rate_hz
        yield (
            np.diff(unit, axis=0)[kept],
            ((unit[1:] + unit[:-1]) / 2)[kept],
            ((turning[1:] + turning[:-1]) / 2 * seconds)[kept],
        )


def _unsteady(cells: np.ndarray) -> np.ndarray:
    """Deviation of each cell from a straight line, all axes together: ``(3, n, length)``."""
    length = cells.shape[2]
    place = np.arange(length) - (length - 1) / 2
    centred = cells - cells.mean(axis=2, keepdims=True)
    slope = centred @ place / (place @ place)
    left = centred - slope[..., None] * place
    return np.asarray(np.sqrt((left**2).mean(axis=2).sum(axis=0)))
