"""Gravity in seconds in which an accelerometer is still or turns slowly."""

from __future__ import annotations

import numpy as np

from shards.signal.sample_buffer import Column

CELL_S = 1.0
MOST_CALM_DEVIATION = 0.25  # of a second, over its mean vector's length
FEWEST_CELLS = 3
FEWEST_ROWS = 4  # of a cell


def visible_gravity(rows: Column, axes: list[int]) -> float | None:
    """Median length of the mean vector of calm seconds, in the rows' unit.

    axes: columns of x, y and z. None where fewer than three seconds are calm: vigorous
    exercise adds acceleration that does not average out. The threshold is relative, so that it
    holds in wrong units as well.
    """
    lengths = [found for block in rows.blocks() for found in _calm(block, axes)]
    return float(np.median(lengths)) if len(lengths) >= FEWEST_CELLS else None


def _calm(block: np.ndarray, axes: list[int]) -> list[float]:
    values = block["values"][:, axes].astype(np.float64)
    cells = np.floor(block["time_s"] / CELL_S)
    first = np.flatnonzero(np.diff(cells, prepend=np.nan) != 0)
    counts = np.diff(np.append(first, len(values)))
    mean = np.add.reduceat(values, first) / counts[:, None]
    square = np.add.reduceat(values**2, first).sum(axis=1) / counts
    length = np.linalg.norm(mean, axis=1)
    deviation = np.sqrt(np.maximum(square - length**2, 0.0))
    return length[(counts >= FEWEST_ROWS) & (deviation < MOST_CALM_DEVIATION * length)].tolist()
