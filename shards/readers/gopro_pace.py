"""Does a GoPro's film run in real time? Time lapse, TimeWarp and slow motion do not.

notes = check_pace("GX01.MP4", {"ACCL": (2082, 197.5)}, {"TICK": ticks}, film)

In such a film a second on the screen is another in the world, and so is one of the telemetry, whose
blocks have the film's times: the samples of 5 s of film would be a window of 75 s. In time lapse
and TimeWarp a camera stores one averaged sample for each picture (the author of GPMF-parser, its
issue 118). What tells is the clocks that run next to the film's, and the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# All GoPros sample at 200 Hz, the gyroscopes of HERO5 and Fusion at 400 and 3200 Hz ("GPMF
# Introduction"), give or take a percent. So the accelerometer tells of a film sped up by two.
USUAL_HZ = {"ACCL": (200.0,), "GYRO": (200.0, 400.0, 3200.0)}
USUAL = 0.1
LOWEST_HZ = 90.0  # of an IMU in real time
HIGHEST_HZ = 4000.0
FRAMES_HZ = 65.0  # up to this rate one sample for each picture is no chance
# By how much the clocks may run off the film's, each after so many seconds of it. GPSU steps.
_TOLERATED = {"STMP": (0.1, 4.0), "TICK": (0.1, 4.0), "GPSU": (0.25, 10.0), "GPS9": (0.25, 10.0)}
SPAN = 0.25  # of a film's length, by which its telemetry may be shorter or longer
_LEAST_S = 4.0  # films below it say nothing by their length
_AROUND = 5  # blocks over which a clock's pace is taken
_UNKNOWN = 50.0  # ratios beyond it, or below one in it, are of units that are not known


class VideoTimes(NamedTuple):
    """What the file says of its pictures; None where it says nothing."""

    duration_s: float | None = None
    frames: int | None = None

    @classmethod
    def of(cls, container: Any) -> VideoTimes:
        """That of an open container of PyAV."""
        stream = container.streams.best("video")
        if stream is None or not stream.duration or not stream.time_base:
            return cls()
        return cls(float(stream.duration * stream.time_base), stream.frames or None)


def check_pace(
    where: str,
    sensors: Mapping[str, tuple[int, float]],
    clocks: Mapping[str, Sequence[tuple[float, float]]],
    film: VideoTimes,
) -> list[str]:
    """ValueError naming the file and the figure where the film is not in real time; notes else.

    sensors: samples, and samples a second of film (0: not known), by key. clocks: times of blocks
    in the film, and of the same moments by another clock, both in s, by name.
    """
    for name, times in clocks.items():
        tolerated, least_s = _TOLERATED[name.split()[0]]
        ratio = _ratio(times, least_s)
        if ratio is not None and abs(ratio - 1) > tolerated and 1 / _UNKNOWN < ratio < _UNKNOWN:
            raise _not_real(
                where,
                f"a second of it is {ratio:.3g} s by {name}, where {tolerated:.0%} is allowed",
            )
    notes = []
    for key, (samples, rate_hz) in sensors.items():
        told = f"{key} has {rate_hz:.4g} samples a second of it"
        single = film.frames is not None and abs(samples - film.frames) <= max(2, samples // 100)
        if single and rate_hz < FRAMES_HZ:
            raise _not_real(where, f"{told}, one for each picture ({film.frames})")
        if rate_hz and not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
            raise _not_real(
                where, f"{told}, and a GoPro samples at {LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz"
            )
        usual_hz = USUAL_HZ[key]
        if rate_hz and all(abs(rate_hz / usual - 1) > USUAL for usual in usual_hz):
            notes.append(
                f"{key} has {rate_hz:.4g} samples a second of film, and GoPros sample at "
                f"{', '.join(f'{usual:g}' for usual in usual_hz)} Hz: see that the film is in real "
                "time"
            )
    return notes


def check_span(where: str, span_s: float, film: VideoTimes) -> None:
    """ValueError where telemetry with times of its own does not last as long as the film.

    span_s: from its first sample to its last.
    """
    if not film.duration_s or max(span_s, film.duration_s) < _LEAST_S:
        return
    ratio = span_s / film.duration_s
    if abs(ratio - 1) > SPAN:
        raise _not_real(
            where,
            f"its telemetry lasts {span_s:.1f} s, and the film {film.duration_s:.1f} s, where "
            f"{SPAN:.0%} is allowed",
        )


def _not_real(where: str, evidence: str) -> ValueError:
    return ValueError(
        f"{where}: the film is not in real time: {evidence}. Windows of time lapse, TimeWarp or "
        "slow motion would not be as long as they say; leave it out"
    )


def _ratio(times: Sequence[tuple[float, float]], least_s: float) -> float | None:
    """Seconds of the other clock to a second of film, the median over the file; None if too few.

    A clock may begin anew within it, as where several recordings were joined.
    """
    film_s, other_s = np.array(times, np.float64).T
    if len(times) < 3 or film_s[-1] - film_s[0] < least_s:
        return None
    apart = min(_AROUND, len(times) // 2)
    film_s, other_s = film_s[apart:] - film_s[:-apart], other_s[apart:] - other_s[:-apart]
    return float(np.median(other_s / film_s)) if film_s.min() > 0 else None
