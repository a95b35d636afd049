"""Channels that are no measurement, as the samples of a window show."""

from __future__ import annotations

import numpy as np

# Of a channel's largest value: resampling leaves a constant constant, and a copy a copy, up to the
# rounding of float32.
ROUNDING = 1e-6


def has_constant_channel(imu: np.ndarray) -> bool:
    """Whether a channel of imu ``(C, T)`` never changes."""
    return bool((np.ptp(imu, axis=1) <= ROUNDING * np.abs(imu).max(axis=1)).any())


def has_equal_channels(imu: np.ndarray) -> bool:
    """Whether two channels of imu ``(C, T)`` are equal."""
    scale = np.abs(imu).max(axis=1)
    for row in range(len(imu) - 1):
        difference = np.abs(imu[row + 1 :] - imu[row]).max(axis=1)
        if (difference <= ROUNDING * scale[row]).any():
            return True
    return False
