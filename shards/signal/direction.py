"""Where gravity lies on a device's axes: what tells apart devices worn at one placement.

gravity_direction(signal)  # (0.99, -0.05, 0.1): x points up
"""

from __future__ import annotations

import numpy as np

from primus_scale.signal.units import GRAVITY
from shards.recording import ACCELEROMETER
from shards.signal.condition import Conditioned

SLOW = 0.5  # m/s2: deviation of |a| within a second, up to which a second is slow
NEAR = 0.15  # of gravity: how far the mean |a| of a slow second may lie from it
BLOCK_S = 600  # seconds taken at once


def gravity_direction(signal: Conditioned) -> tuple[float, float, float] | None:
    """Where the reading at rest points, which is up: mean of unit vectors over the slow seconds.

    Over all seconds where none is slow. Its length tells how steady the direction was, 0 to 1.
    None where the device has no accelerometer or no signal.
    """
    if not set(ACCELEROMETER) <= set(signal.channels):
        return None
    rows = [signal.channels.index(name) for name in ACCELEROMETER]
    second = max(round(signal.rate_hz), 1)
    sums = np.zeros((2, 4))  # of the slow seconds, and of all: unit vectors, and how many
    for stretch in signal.stretches:
        for start in range(0, stretch.stop - stretch.start, second * BLOCK_S):
            acc = stretch.values[rows, start : start + second * BLOCK_S].astype(np.float64)
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
    slow = (spread < SLOW) & (np.abs(size / GRAVITY - 1) < NEAR)
    units = mean / np.maximum(size, np.finfo(np.float64).tiny)
    return np.vstack([units, np.ones(len(first))]) * count / second, slow
