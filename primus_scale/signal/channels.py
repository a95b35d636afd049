"""Find channels that hold no measurement: constant channels, and copies of another channel."""

from __future__ import annotations

import numpy as np

# Share of a channel's largest value. After resampling a constant channel is constant, and a copy
# equal to its original, up to the rounding of float32.
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
