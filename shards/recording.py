"""What a raw recording is, whatever device or data set it comes from.

A reader turns files into a `Recording`: timed sensor streams, a frame source, narrations, labels,
and notes on its clocks. It converts nothing and repairs nothing: order, duplicates, gaps, units,
filtering and cutting are the signal path's, in one place for all (`shards.signal`).

All times are seconds on one clock, the *recording's clock*; a reader that finds several clocks
(device, video, narrations) puts them on it and says how in `Recording.sync`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from primus_scale.sample import CHANNELS, UNITS

ACCELEROMETER = CHANNELS[:3]
GYROSCOPE = CHANNELS[3:]


class Samples(NamedTuple):
    """A chunk of a sensor's samples: time_s float64 ``(n,)``, values float ``(n, c)``.

    A NaN among the values marks an invalid record, a NaN time one without a time; both are
    counted and left out by the signal path, never filled in.
    """

    time_s: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Sensor:
    """One sensor: a stream of samples of ``c = len(channels)`` axes with a clock of its own.

    channels: names in the window, such as ``ACCELEROMETER``. unit: of the values as they are read
    (a key of ``primus_scale.signal.units.UNIT_FACTORS``). read: iterates over the samples in file
    order, in chunks of bounded size, anew at each call. limit: full scale in ``unit``, at which a
    value is saturated (None: not known). rectify: calibration of values ``(n, c)`` in SI units, if
    there is one. clock: where its times are from, for messages, such as "column t, in ms".
    """

    channels: tuple[str, ...]
    unit: str
    read: Callable[[], Iterable[Samples]]
    limit: float | None = None
    rectify: Callable[[np.ndarray], np.ndarray] | None = None
    clock: str = ""


@dataclass(frozen=True)
class Device:
    """Sensors in one body, at one placement.

    nominal_rate_hz: as its maker or data set states it. axes: where x, y and z of its values point,
    and who says so; empty where nobody does. Devices at one placement differ in them.
    """

    name: str
    placement: str
    sensors: tuple[Sensor, ...]
    nominal_rate_hz: float | None = None
    axes: str = ""


class Narration(NamedTuple):
    """What the wearer does: cleaned text, at a point in time (end_s equal to start_s) or a span."""

    start_s: float
    end_s: float
    text: str


class LabelSpan(NamedTuple):
    """The time of one activity, from its first sample to its last; both belong to it."""

    start_s: float
    end_s: float
    label: str


class FrameSource(Protocol):
    """Pictures of a recording, decoded as needed; never all in memory."""

    def times_s(self) -> np.ndarray:
        """Time of every frame on the recording's clock, float64 ``(frames,)``, ascending."""

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        """The frames with these ascending numbers, upright, uint8 RGB ``(height, width, 3)``.

        short_side: scale so that the shorter side has that many pixels (None: as stored).
        """


@dataclass(frozen=True)
class Recording:
    """What a reader yields.

    session: the wearing that it is of (``WindowMeta.session``), where the data set says; empty:
    the recording's name. capture, clock_zero: as in ``WindowMeta``.
    sync: how IMU, frames and narrations were put on one clock.
    notes: on this recording, for the report (streams missing, clocks assumed, rows skipped).
    unread: lines on files within the recording's that were not read, and may be misnamed.
    """

    dataset: str
    name: str
    person: str
    devices: tuple[Device, ...]
    session: str = ""
    capture: str = ""
    clock_zero: str = ""
    frames: FrameSource | None = None
    narrations: tuple[Narration, ...] = ()
    labels: tuple[LabelSpan, ...] = ()
    sync: str = ""
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordingRef:
    """A recording as a listing shows it: its name in the data set, its files, and JSON details.

    name is unique in the listing. files are relative to the source; their sizes tell whether the
    source changed since an interrupted run. details: what ``open`` needs from the listing.
    """

    name: str
    files: tuple[str, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowSchema:
    """Shape of the windows that a reader's recordings become by default."""

    channels: tuple[str, ...] = CHANNELS
    units: tuple[str, ...] = UNITS
    rate_hz: float = 50.0
    window_s: float = 5.0
