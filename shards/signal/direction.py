"""Direction of gravity on a device's axes; devices at one placement differ in it.

gravity_direction(signal)  # (0.99, -0.05, 0.1): x points up
"""

from __future__ import annotations

import numpy as np

from primus_scale.signal.units import GRAVITY
from shards.recording import ACCELEROMETER
from shards.signal.condition import Conditioned

MOST_SLOW_DEVIATION = 0.5  # m/s2, of |a| within a slow second
MOST_GRAVITY_ERROR = 0.15  # of the mean |a| of a slow second, as a share of gravity
BLOCK_S = 600  # seconds taken at once


def gravity_direction(signal: Conditioned) -> tuple[float, float, float] | None:
    """Where the reading at rest points, which is up: mean of unit vectors over the slow seconds.

    Over all seconds where none is slow. Its length, 0 to 1, says how steady the direction was.
    None where the device has no accelerometer or no signal.
    """
    if not set(ACCELEROMETER) <= set(signal.channels):
        return None
    rows = [signal.channels.index(name) for name in ACCELEROMETER]
    second = max(round(signal.rate_hz), 1)
    sums = np.zeros((2, 4))  # of the slow seconds, and of all: unit vectors, and how many
    for segment in signal.segments:
        for start in range(0, segment.stop - segment.start, second * BLOCK_S):
            acc = segment.values[rows, start : start + second * BLOCK_S].astype(np.float64)
            vectors, slow = _seconds(acc, second)
            sums += vectors[:, slow].sum(axis=1), vectors.sum(axis=1)
    chosen = sums[0] if sums[0, 3] else sums[1]
    if not chosen[3]:
        return None
    x, y, z = (chosen[:3] / chosen[3]).tolist()
    return x, y, z


def _seconds(acc: np.ndarray, second: int) -> tuple[np.ndarray, np.ndarray]:
    """Of acc ``(3, n)``: each second's unit vector and 1, ``(4, s)``, and whether it is slow.

    Both weigh as much of a second as there is of the last one.
    """
    first = np.arange(0, acc.shape[1], second)
    count = np.diff(np.append(first, acc.shape[1]))
    mean = np.add.reduceat(acc, first, axis=1) / count
    size = np.linalg.norm(mean, axis=0)
    magnitude = np.linalg.norm(acc, axis=0)
    steady = np.add.reduceat(magnitude, first) / count
    spread = np.sqrt(np.maximum(np.add.reduceat(magnitude**2, first) / count - steady**2, 0))
    slow = (spread < MOST_SLOW_DEVIATION) & (np.abs(size / GRAVITY - 1) < MOST_GRAVITY_ERROR)
    units = mean / np.maximum(size, np.finfo(np.float64).tiny)
    return np.vstack([units, np.ones(len(first))]) * count / second, slow
