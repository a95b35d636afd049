"""From an array of samples to windows, as ``shards build`` makes them from recordings.

Shapes: n samples, C channels, m windows of T samples. The grid of the windows has its point 0 at
the array's first sample. Rows with NaN are missing samples: a few are filled in by the resampling,
and no window lies across a longer gap.

Unlike ``shards build`` this does not look for repeated values, lone spikes and samples at full
scale; data that may hold them go through shards.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from primus_scale.signal.channels import has_constant_channel, has_equal_channels
from primus_scale.signal.gaps import longest_spacing_s
from primus_scale.signal.resample import Resampler

GOOD = "good"
GAP = "gap"
CONSTANT = "constant channel"
EQUAL = "equal channels"


class ArrayWindows(NamedTuple):
    """imu ``(m, C, T)`` float32, NaN in gaps; start_s ``(m,)`` float64; quality ``(m,)`` of str.

    quality: ``GOOD``, or what a window is not to be used for.
    """

    imu: np.ndarray
    start_s: np.ndarray
    quality: np.ndarray


def cut_windows(
    values: np.ndarray, rate_hz: float, *, grid_hz: float, samples: int, hop: int
) -> ArrayWindows:
    """Resample ``values (n, C)`` to ``grid_hz`` and cut a window every ``hop`` samples of it."""
    signal = resample(values, rate_hz, grid_hz)
    starts = np.arange(0, len(signal) - samples + 1, hop)
    imu = np.stack([signal[start : start + samples].T for start in starts]) if len(starts) else None
    if imu is None:
        imu = np.empty((0, values.shape[1], samples), np.float32)
    return ArrayWindows(imu, starts / grid_hz, judge_windows(imu))


def resample_windows(
    windows: np.ndarray, rate_hz: float, *, grid_hz: float, samples: int
) -> ArrayWindows:
    """Resample each of ``windows (m, C, n)``, which last as long as ``samples`` at ``grid_hz``.

    Windows that are at ``grid_hz`` already stay as they are. The start of each is not known: NaN.
    """
    imu = windows.astype(np.float32)
    if rate_hz != grid_hz:
        parts = [_resample_window(window.T, rate_hz, grid_hz, samples).T for window in windows]
        imu = np.stack(parts) if parts else np.empty((0, windows.shape[1], samples), np.float32)
    return ArrayWindows(imu, np.full(len(windows), np.nan), judge_windows(imu))


def resample(values: np.ndarray, rate_hz: float, grid_hz: float) -> np.ndarray:
    """Bring ``values (n, C)`` to the grid of ``grid_hz``: ``(m, C)`` float32, NaN in gaps."""
    present = np.flatnonzero(np.isfinite(values).all(axis=1))
    resampler = Resampler(1 / rate_hz, grid_hz)
    signal = np.full((resampler.stop((len(values) - 1) / rate_hz), values.shape[1]), np.nan, "f4")
    spacing_s = np.diff(present) / rate_hz
    breaks = np.flatnonzero(spacing_s > longest_spacing_s(1 / rate_hz)) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(present)]):
        rows = present[first:last]
        if len(rows):
            time_s = rows / rate_hz
            grid = range(resampler.first(time_s[0]), resampler.stop(time_s[-1]))
            signal[grid.start : grid.stop] = resampler(time_s, values[rows], grid)
    return signal


def judge_windows(imu: np.ndarray) -> np.ndarray:
    """The quality of each of ``imu (m, C, T)``: ``(m,)`` of str."""
    quality = []
    for window in imu:
        if not np.isfinite(window).all():
            quality.append(GAP)
        elif has_constant_channel(window):
            quality.append(CONSTANT)
        else:
            quality.append(EQUAL if has_equal_channels(window) else GOOD)
    return np.array(quality, dtype=f"U{max(map(len, (GOOD, GAP, CONSTANT, EQUAL)))}")


def _resample_window(
    values: np.ndarray, rate_hz: float, grid_hz: float, samples: int
) -> np.ndarray:
    """One window ``(n, C)``, whose last sample is held to the window's end, a spacing later."""
    held = np.concatenate([values, values[-1:]])
    signal = resample(held, rate_hz, grid_hz)
    return signal[:samples]
