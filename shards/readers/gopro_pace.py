"""Checks that a GoPro's video is in real time: no time lapse, TimeWarp or slow motion.

notes = check_pace("GX01.MP4", {"ACCL": (2082, 197.5)}, {"TICK": ticks}, video)

In such a video a second of video is not a second of real time. Its telemetry has the video's times,
so 5 s of video may hold the samples of 75 s. In time lapse and TimeWarp a camera stores one
averaged sample for each picture (the author of GPMF-parser, in its issue 118). Such a video is
detected by other clocks in the file, and by the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# All GoPros sample at 200 Hz, the gyroscopes of HERO5 and Fusion at 400 and 3200 Hz ("GPMF
# Introduction"), to about 1 %. So a video sped up by two shows in the rate of the accelerometer.
USUAL_HZ = {"ACCL": (200.0,), "GYRO": (200.0, 400.0, 3200.0)}
USUAL_ERROR = 0.1  # of a rate, as a share of a usual one
LOWEST_HZ = 90.0  # of an IMU in real time
HIGHEST_HZ = 4000.0
FRAMES_HZ = 65.0  # up to this rate of pictures, one sample for each picture is no coincidence
# Error allowed to each clock's rate, and the least length of video to judge it. GPSU steps.
_CLOCK_ERRORS = {"STMP": (0.1, 4.0), "TICK": (0.1, 4.0), "GPSU": (0.25, 10.0), "GPS9": (0.25, 10.0)}
LENGTH_ERROR = 0.25  # of the telemetry's length, as a share of the video's
_LEAST_S = 4.0  # of video; the length of a shorter one shows nothing
_RATE_BLOCKS = 5  # distance of the blocks by which a clock's rate is measured
_LARGEST_RATIO = 50.0  # a larger ratio, or one below 1/50, is due to an unknown unit


class VideoLength(NamedTuple):
    """Length of a video and number of its pictures, as the file states them (None: it does not)."""

    duration_s: float | None = None
    frames: int | None = None

    @classmethod
    def of(cls, container: Any) -> VideoLength:
        """Of an open container of PyAV."""
        stream = container.streams.best("video")
        if stream is None or not stream.duration or not stream.time_base:
            return cls()
        return cls(float(stream.duration * stream.time_base), stream.frames or None)


def check_pace(
    where: str,
    sensors: Mapping[str, tuple[int, float]],
    clocks: Mapping[str, Sequence[tuple[float, float]]],
    video: VideoLength,
) -> list[str]:
    """Notes on unusual rates; ValueError naming file and rate where it is not in real time.

    sensors: samples, and samples a second of video (0: not known), by key. clocks: times of blocks
    in the video, and of the same moments by another clock, both in s, by name.
    """
    for name, times in clocks.items():
        tolerated, least_s = _CLOCK_ERRORS[name.split()[0]]
        ratio = _ratio(times, least_s)
        if (
            ratio is not None
            and abs(ratio - 1) > tolerated
            and 1 / _LARGEST_RATIO < ratio < _LARGEST_RATIO
        ):
            raise _not_real_time(
                where,
                f"a second of it is {ratio:.3g} s by {name}, where {tolerated:.0%} is allowed",
            )
    notes = []
    for key, (samples, rate_hz) in sensors.items():
        rate = f"{key} has {rate_hz:.4g} samples a second of it"
        single = video.frames is not None and abs(samples - video.frames) <= max(2, samples // 100)
        if single and rate_hz < FRAMES_HZ:
            raise _not_real_time(where, f"{rate}, one for each picture ({video.frames})")
        if rate_hz and not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
            raise _not_real_time(
                where, f"{rate}, and a GoPro samples at {LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz"
            )
        usual_hz = USUAL_HZ[key]
        if rate_hz and all(abs(rate_hz / usual - 1) > USUAL_ERROR for usual in usual_hz):
            notes.append(
                f"{key} has {rate_hz:.4g} samples a second of video, and GoPros sample at "
                f"{', '.join(f'{usual:g}' for usual in usual_hz)} Hz: check that the video is in "
                "real time"
            )
    return notes


def check_span(where: str, span_s: float, video: VideoLength) -> None:
    """ValueError where telemetry that has its own times is not as long as the video.

    span_s: from its first sample to its last.
    """
    if not video.duration_s or max(span_s, video.duration_s) < _LEAST_S:
        return
    ratio = span_s / video.duration_s
    if abs(ratio - 1) > LENGTH_ERROR:
        raise _not_real_time(
            where,
            f"its telemetry lasts {span_s:.1f} s, and the video {video.duration_s:.1f} s, where "
            f"{LENGTH_ERROR:.0%} is allowed",
        )


def _not_real_time(where: str, evidence: str) -> ValueError:
    return ValueError(
        f"{where}: the video is not in real time: {evidence}. Windows of time lapse, TimeWarp or "
        "slow motion would not be as long as they say; leave it out"
    )


def _ratio(times: Sequence[tuple[float, float]], least_s: float) -> float | None:
    """Seconds of the other clock in a second of video: median over the file; None if too short.

    A median, since a clock restarts within a file that was joined from several recordings.
    """
    video_s, other_s = np.array(times, np.float64).T
    if len(times) < 3 or video_s[-1] - video_s[0] < least_s:
        return None
    apart = min(_RATE_BLOCKS, len(times) // 2)
    video_s, other_s = video_s[apart:] - video_s[:-apart], other_s[apart:] - other_s[:-apart]
    return float(np.median(other_s / video_s)) if video_s.min() > 0 else None
