"""Gates that a window must pass to become a record.

imu = check_window(signal, start, samples)  # (C, T), or one of the reasons of `shards.report`
"""

from __future__ import annotations

import numpy as np

from primus_scale.signal.channels import has_constant_channel, has_equal_channels
from shards.report import CLOCK, COPIED, DEAD, GAP, INVALID, NO_SENSOR, OUTSIDE, SATURATED
from shards.signal.condition import Conditioned

TOLERANCE_S = 1e-6  # of the ends of a device's samples


def check_window(signal: Conditioned, start: int, samples: int) -> np.ndarray | str:
    """Cut imu float32 ``(C, samples)`` at grid index ``start``, or give the reason against it.

    The first that applies: a sensor is missing; the window reaches out of the device's samples; a
    gap made by invalid records; a step of a sensor's clock; another gap; a sample at full scale; a
    channel that never changes; two channels that are equal.
    """
    if signal.missing:
        return NO_SENSOR
    begin_s, end_s = start / signal.rate_hz, (start + samples - 1) / signal.rate_hz
    if begin_s < signal.start_s - TOLERANCE_S or end_s > signal.end_s + TOLERANCE_S:
        return OUTSIDE
    segment = signal.segment_at(start)
    if segment is None or start + samples > segment.stop:
        if signal.invalid_within(begin_s, end_s):
            return INVALID
        return CLOCK if signal.clock_set_within(begin_s, end_s) else GAP
    columns = slice(start - segment.start, start - segment.start + samples)
    if segment.saturated[columns].any():
        return SATURATED
    imu = np.ascontiguousarray(segment.values[:, columns], dtype=np.float32)
    if has_constant_channel(imu):
        return DEAD
    return COPIED if has_equal_channels(imu) else imu
