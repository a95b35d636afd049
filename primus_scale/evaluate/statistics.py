"""Scores from confusion counts, and intervals of their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % interval, of ``n`` independent values."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Student's t interval of the mean; a single value or equal values have no width."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("the mean of no values was asked for; every arm needs at least one draw")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, mean, mean, 1)
    error = float(array.std(ddof=1)) / np.sqrt(array.size)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, array.size - 1)) * error
    return Interval(mean, mean - half, mean + half, int(array.size))


def confusion_counts(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(classes, classes)``, true classes down and predicted ones across."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy(counts: np.ndarray) -> float:
    """Share of windows on the diagonal."""
    return float(np.trace(counts) / counts.sum())


def macro_f1(counts: np.ndarray) -> float:
    """Mean of the classes' F1 scores, over classes that occur as true or as predicted."""
    hits = np.diag(counts)
    occurrences = counts.sum(axis=0) + counts.sum(axis=1)
    seen = occurrences > 0
    return float((2 * hits[seen] / occurrences[seen]).mean())
