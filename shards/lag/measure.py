"""The lag of the picture behind the IMU, for the synchronisation report.

outcome = measure_lag(signal, recording.frames, device.name, settings)
if isinstance(outcome, LagReport) and outcome.flagged:
    frames = shift_frames(recording.frames, outcome.lag_s)

The motion of the picture (``shards.lag.picture_motion``) is compared with the rotation that the
gyroscope measured, at all lags up to 5 s. ``shards.lag.evidence`` says how, and what confidence
means.

The time stamp of a frame may lie anywhere from the beginning of its first row to the end of its
last (exposure, rolling shutter). So a measured lag of -20 to 0 ms means no lag. One lag is assumed
for the whole recording; if the clocks drift apart, the confidence is lower. It is lower, too, for
video that the camera has stabilised, since its picture does not move as the camera did.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from shards.lag.evidence import REACH_S, MotionPair, find_lag
from shards.lag.picture_motion import SHORT_SIDE, picture_motion
from shards.recording import GYROSCOPE, FrameSource
from shards.report import CONFIDENT, LagReport
from shards.settings import IngestSettings
from shards.signal.condition import Conditioned

_CLIPS = 6  # of the video that are decoded
_CLIP_S = 20.0
_LEAST_S = 5.0  # of video, for a lag to be measured
_RATE_HZ = 30.0  # about that of the frames decoded
_LONGEST_S = 0.25  # between frames; motion over a longer time is not measured


def measure_lag(
    signal: Conditioned, frames: FrameSource, device: str, settings: IngestSettings
) -> LagReport | str:
    """How much later the picture shows a motion than the gyroscope among ``signal.channels``.

    Where nothing can be compared (no gyroscope, too little video or motion), a string says why, for
    the notes on the recording. A lag is flagged if it is above ``settings.max_lag_s`` and its
    confidence is at least ``CONFIDENT``.

    At most six clips of 20 s are decoded, in small pictures at about 30 frames/s. The time that
    video and gyroscope have in common is divided into six spans; of each, the clip is taken in
    which the device turns most. Errors of decoding are those of ``frames``.
    """
    unknown = f"lag of the picture behind {device} not measured: "
    if not set(GYROSCOPE) <= set(signal.channels) or not signal.segments:
        return unknown + "no signal of a gyroscope"
    gyroscope = _Gyroscope(signal)
    pairs = list(_pairs(frames, gyroscope))
    seconds = sum(pair.measured_s for pair in pairs)
    if seconds < _LEAST_S:
        return unknown + f"motion can be followed in {seconds:.1f} s of video only"
    found = find_lag(pairs)
    if found is None:
        return unknown + "nothing moves in the video, or in the gyroscope"
    return LagReport(
        device=device,
        lag_s=round(found.lag_s, 4),
        correlation=round(found.correlation, 4),
        confidence=round(found.confidence, 4),
        seconds=round(seconds, 3),
        flagged=abs(found.lag_s) > settings.max_lag_s and found.confidence >= CONFIDENT,
    )


@dataclass(frozen=True)
class _ShiftedFrames:
    frames: FrameSource
    lag_s: float

    def times_s(self) -> np.ndarray:
        return self.frames.times_s() - self.lag_s

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        return self.frames.pictures(numbers, short_side=short_side)


def shift_frames(frames: FrameSource, lag_s: float) -> FrameSource:
    """The same frames, each ``lag_s`` earlier; so they agree with the IMU if that is their lag."""
    return _ShiftedFrames(frames, lag_s)


class _Gyroscope:
    """The rotation in a signal, read span by span. start_s, end_s: of its first and last sample."""

    def __init__(self, signal: Conditioned) -> None:
        self._rate_hz = signal.rate_hz
        self._segments = signal.segments
        self._rows = [signal.channels.index(name) for name in GYROSCOPE]
        self.start_s = signal.segments[0].start / signal.rate_hz
        self.end_s = (signal.segments[-1].stop - 1) / signal.rate_hz

    def energy(self, start_s: float, end_s: float) -> float:
        """Sum of squared deviations from the mean rate, without gaps."""
        _, rates = self._rates(start_s, end_s)
        held = rates[~np.isnan(rates[:, 0])]
        return float(np.square(held - held.mean(axis=0)).sum()) if len(held) else 0.0

    def angle(self, start_s: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
        """``grid_s`` and ``angle`` of a `MotionPair`, over this span."""
        grid_s, rates = self._rates(start_s, end_s)
        missing = np.isnan(rates[:, 0])
        rates[missing] = 0.0
        angle = np.zeros((len(rates), 4))
        angle[1:, :3] = np.cumsum((rates[1:] + rates[:-1]) / (2 * self._rate_hz), axis=0)
        angle[1:, 3] = np.cumsum(missing[1:] | missing[:-1])
        return grid_s, angle

    def _rates(self, start_s: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Grid times ``(m,)`` that enclose the span, and rates ``(m, 3)`` in rad/s, NaN in gaps."""
        first = math.floor(start_s * self._rate_hz)
        stop = math.ceil(end_s * self._rate_hz) + 1
        rates = np.full((stop - first, 3), np.nan)
        number = bisect.bisect_right(self._segments, first, key=lambda segment: segment.stop)
        for segment in itertools.islice(self._segments, number, None):
            if segment.start >= stop:
                break
            low, high = max(first, segment.start), min(stop, segment.stop)
            values = segment.values[self._rows, low - segment.start : high - segment.start]
            rates[low - first : high - first] = values.T
        return np.arange(first, stop) / self._rate_hz, rates


def _clips(times_s: np.ndarray, gyroscope: _Gyroscope) -> Iterator[tuple[float, float]]:
    """The clips to decode; see ``measure_lag``."""
    if not len(times_s):
        return
    start_s = max(float(times_s[0]), gyroscope.start_s)
    end_s = min(float(times_s[-1]), gyroscope.end_s)
    if end_s <= start_s:
        return
    spans = min(_CLIPS, math.ceil((end_s - start_s) / _CLIP_S))
    for low_s, high_s in itertools.pairwise(np.linspace(start_s, end_s, spans + 1).tolist()):
        count = max(1, math.floor((high_s - low_s) / _CLIP_S))
        starts = [low_s + number * _CLIP_S for number in range(count)]
        clips = [(start, min(start + _CLIP_S, high_s)) for start in starts]
        yield max(clips, key=lambda clip: gyroscope.energy(*clip))


def _pairs(frames: FrameSource, gyroscope: _Gyroscope) -> Iterator[MotionPair]:
    """The clips of the video, decoded one after another, with the gyroscope of the same time."""
    times_s = frames.times_s()
    for clip in _clips(times_s, gyroscope):
        first, stop = np.searchsorted(times_s, clip).tolist()
        spacings_s = np.diff(times_s[first:stop])
        every = max(1, round(1 / (_RATE_HZ * np.median(spacings_s)))) if len(spacings_s) else 1
        numbers = range(first, stop, every)
        if len(numbers) < 2:
            continue
        time_s = times_s[numbers.start : numbers.stop : numbers.step]
        motion = picture_motion(frames.pictures(numbers, short_side=SHORT_SIDE))
        motion[np.diff(time_s) > _LONGEST_S] = np.nan
        grid_s, angle = gyroscope.angle(time_s[0] - REACH_S, time_s[-1] + REACH_S)
        yield MotionPair(time_s, motion, grid_s, angle)
