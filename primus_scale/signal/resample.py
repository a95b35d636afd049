"""Resampling of samples at any times onto a uniform grid, free of aliases and of delay.

A cubic spline through the samples, at regular or irregular times, is evaluated on a fine uniform
grid. A windowed sinc of linear phase, centred on the output, then removes high frequencies there,
so the signal is not delayed.

Let ``band`` be the lower of native and new rate. The filter passes 0 to 0.4 band within 0.2 %, and
has half amplitude at band / 2. It stops from 0.6 band on, by 60 dB there and by more than 40 dB
everywhere. At 50 Hz it is flat to 20 Hz and stops from 30 Hz on; frequencies of 25 to 30 Hz, in the
transition, fold to 20 to 25 Hz, attenuated by 6 to 60 dB. With a jitter of a tenth of the spacing
this holds to 1 % and 40 dB for rates from 60 Hz on. The upper quarter below the native Nyquist rate
is an exception: no method can separate it from noise.
"""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np

HALF_WIDTH = 10  # of the sinc, in periods of its band
ATTENUATION_DB = 60.0
OVERSAMPLED = 6.0  # native rates of at least so many times the new one need no refinement
SPLINE_REACH = 32  # samples after which the end of a spline has no effect (0.27 ** 32)
LONGEST_SPACING = 2.5  # periods; over longer ones the spline follows a straight line
SHORTEST_SPACING = 0.25  # periods; closer samples are averaged, or the spline would overshoot
TOLERANCE_S = 1e-6  # by which a grid point may be outside the samples: rounding of epoch times


class Resampler:
    """Resamples from samples about every ``period_s`` to times ``k / rate_hz``, k whole.

    If the native rate is below ``OVERSAMPLED`` times the new one, a spline alone would lose the
    upper part of the band, or fold jitter into it. Then the residual, the difference between the
    samples and the signal at their times, is interpolated and added, once or twice (iterative
    reconstruction from irregular samples).
    """

    def __init__(self, period_s: float, rate_hz: float) -> None:
        self.period_s = period_s
        self.rate_hz = rate_hz
        ratio = 1.0 / (period_s * rate_hz)
        self._refinements = 0 if ratio >= OVERSAMPLED else 1 if ratio >= 1.5 else 2
        # On the fine grid, images of the spline do not fold into the band.
        self._factor = math.ceil(3 * ratio) if self._refinements else math.ceil(ratio) + 4
        self._taps = _low_pass(min(ratio, 1.0) / self._factor, self._factor)
        self._native_taps = _low_pass(ratio / self._factor, 1)
        reach = HALF_WIDTH * (max(ratio, 1.0) + self._refinements)
        # Twice the reach, since samples may be denser than usual.
        self.margin = 2 * math.ceil(reach) + (1 + self._refinements) * SPLINE_REACH

    def first(self, time_s: float) -> int:
        """First grid index at or after a time."""
        return math.ceil((time_s - TOLERANCE_S) * self.rate_hz)

    def stop(self, time_s: float) -> int:
        """First grid index after a time."""
        return math.floor((time_s + TOLERANCE_S) * self.rate_hz) + 1

    def __call__(self, time_s: np.ndarray, values: np.ndarray, grid: range) -> np.ndarray:
        """Values float64 ``(len(grid), c)`` at ``grid``, indices within the samples' span.

        time_s ``(n,)`` increasing, values ``(n, c)``: a whole segment, or a part of it with
        ``margin`` samples more than the grid on both sides. At the ends of a segment the signal is
        continued by its point reflection. Outputs nearer to an end than half the filter's width,
        ``10 / band`` seconds, are less exact.
        """
        if not len(grid):
            return np.empty((0, values.shape[1]))
        # Times relative to the first output, where float64 has the best resolution.
        time_s, samples = time_s - grid[0] / self.rate_hz, np.asarray(values, dtype=np.float64)
        time_s, samples = _bridge(*_thin(time_s, samples, self.period_s), self.period_s)
        fine_hz = self._factor * self.rate_hz
        # With twice the tolerance all outputs are on the fine grid in spite of rounding.
        start = math.ceil((time_s[0] - 2 * TOLERANCE_S) * fine_hz)
        stop = math.floor((time_s[-1] + 2 * TOLERANCE_S) * fine_hz) + 1
        signal = self._interpolate(time_s, samples, np.arange(start, stop) / fine_hz)
        # The filter needs half its length before the first output and after the last.
        half = len(self._taps) // 2
        before, after = start + half, (len(grid) - 1) * self._factor + half + 1 - stop
        signal = signal[max(-before, 0) : len(signal) - max(-after, 0)]
        signal = _extend(signal, max(before, 0), max(after, 0), self._factor)
        return _filter(signal, self._taps, self._factor)

    def _interpolate(
        self, time_s: np.ndarray, samples: np.ndarray, fine_s: np.ndarray
    ) -> np.ndarray:
        """The signal through the samples at uniform times, refined within the native band."""
        signal = _spline(time_s, samples, fine_s)
        half = len(self._native_taps) // 2
        for _ in range(self._refinements):
            banded = _filter(_extend(signal, half, half, self._factor), self._native_taps, 1)
            residual = samples - _spline(fine_s, banded, time_s)
            signal += _spline(time_s, residual, fine_s)
        return signal


def import_filters() -> None:
    """Import what the first resampling would: before forks, each of which would import it anew."""
    import_module("scipy.interpolate")
    import_module("scipy.signal")


def _low_pass(band: float, factor: int) -> np.ndarray:
    """Taps of a low-pass at half of ``band``, a share of the sampling rate; they sum to one.

    Their half-length is a multiple of ``factor``, so that decimation keeps the centre.
    """
    half = math.ceil(HALF_WIDTH / band / factor) * factor
    offset = np.arange(-half, half + 1) * band
    beta = 0.1102 * (ATTENUATION_DB - 8.7)  # Kaiser's formula
    window = np.i0(beta * np.sqrt(np.clip(1 - (offset / HALF_WIDTH) ** 2, 0, None)))
    taps = np.sinc(offset) * np.where(np.abs(offset) <= HALF_WIDTH, window, 0.0)
    return np.asarray(taps / taps.sum())


def _filter(signal: np.ndarray, taps: np.ndarray, factor: int) -> np.ndarray:
    """Every ``factor``-th output of the filter, where all its taps lie on ``signal`` ``(n, c)``."""
    from scipy.signal import upfirdn  # a second, which each rank of a training would pay as well

    first = (len(taps) - 1) // factor
    filtered = upfirdn(taps, signal, down=factor, axis=0)
    return np.asarray(filtered[first : first + (len(signal) - len(taps)) // factor + 1])


def _spline(time_s: np.ndarray, values: np.ndarray, wanted_s: np.ndarray) -> np.ndarray:
    """Cubic spline ``(m, c)`` through ``values`` ``(n, c)``; a lone sample is a constant."""
    if len(time_s) == 1:
        return np.repeat(values, len(wanted_s), axis=0)
    from scipy.interpolate import CubicSpline  # as above

    return np.asarray(CubicSpline(time_s, values)(wanted_s))


def _thin(time_s: np.ndarray, values: np.ndarray, period_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Average samples that are closer than a quarter of the period.

    First those within the same half of a period, then pairs across two halves.
    """
    for half_s in (period_s / 2, math.inf):
        near = np.diff(time_s) < SHORTEST_SPACING * period_s
        if not near.any():
            break
        cell = np.floor(time_s / half_s)
        first = np.flatnonzero(np.concatenate([[True], ~near | (np.diff(cell) > 0)]))
        rows = np.diff(np.append(first, len(time_s)))
        time_s = np.add.reduceat(time_s, first) / rows
        values = np.add.reduceat(values, first, axis=0) / rows[:, None]
    return time_s, values


def _bridge(
    time_s: np.ndarray, values: np.ndarray, period_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fill missing samples, too few for a gap, with points on straight lines, for the spline."""
    periods = np.diff(time_s) / period_s
    steps = np.where(periods > LONGEST_SPACING, np.rint(periods), 1).astype(np.int64)
    if (steps == 1).all():
        return time_s, values
    place = np.concatenate([[0], np.cumsum(steps)])
    between = np.arange(place[-1] + 1)
    lines = [np.interp(between, place, column) for column in values.T]
    return np.interp(between, place, time_s), np.stack(lines, axis=1)


def _extend(signal: np.ndarray, before: int, after: int, fitted: int) -> np.ndarray:
    """Continue a uniform signal ``(n, c)`` beyond its ends by point reflection.

    The points of reflection are on straight lines through ``fitted + 1`` values, since the noise of
    a single value would be doubled.
    """
    count = min(fitted + 1, len(signal))
    # Weights by which a least-squares line through `count` values gives its value at the first.
    weights = 2 * (2 * count - 1 - 3 * np.arange(count)) / (count * (count + 1))
    signal = signal.copy()
    ends = weights @ signal[:count], weights @ signal[::-1][:count]
    if before > 0:
        signal[0] = ends[0]
    if after > 0:
        signal[-1] = ends[1]
    return np.pad(signal, ((before, after), (0, 0)), mode="reflect", reflect_type="odd")
