"""What ingestion found: one report a recording, and all of them in ``ingest.json``.

Everything here is a pure function of input and settings (no times of day, no speeds), so that the
same input gives the same bytes whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

INGEST_NAME = "ingest.json"

# Why a planned window was refused. The first that applies is counted.
NO_SENSOR = "no sensor"  # the device lacks a sensor that the schema's channels need
GRAVITY = "implausible gravity"  # median |a| of the whole recording outside 8 to 12 m/s2
OUTSIDE = "outside the IMU"  # before its first or after its last sample
INVALID = "invalid records"  # a gap made by records that are invalid
GAP = "gap"
SATURATED = "saturation"
DEAD = "dead channel"
COPIED = "copied channel"
NO_VIDEO = "no video"
NO_NARRATION = "no narration"
REASONS = (
    NO_SENSOR,
    GRAVITY,
    OUTSIDE,
    INVALID,
    GAP,
    SATURATED,
    DEAD,
    COPIED,
    NO_VIDEO,
    NO_NARRATION,
)


@dataclass(frozen=True)
class SensorReport:
    """What the signal path found in one sensor's samples.

    samples: as read. untimed: without a time; invalid: with NaN, or beyond what any sensor gives;
    duplicates: of a time that was
    there before; out_of_order: earlier than the sample before; these four are rows of the file.
    rate_hz: one over the median spacing. gaps and gap_s: number and total length. limit: full
    scale in SI units, where known; saturated: samples at it.
    """

    channels: tuple[str, ...]
    unit: str
    samples: int
    untimed: int
    invalid: int
    duplicates: int
    out_of_order: int
    saturated: int
    rate_hz: float
    gaps: int
    gap_s: float
    limit: float | None = None


@dataclass(frozen=True)
class DeviceReport:
    """One device of a recording. median_acc: of |acceleration|, m/s2 (None: no accelerometer)."""

    name: str
    placement: str
    nominal_rate_hz: float | None
    start_s: float
    end_s: float
    median_acc: float | None
    sensors: tuple[SensorReport, ...]
    windows: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


CONFIDENT = 0.95  # from here on a lag is taken for true


@dataclass(frozen=True)
class LagReport:
    """Time between a motion in the IMU and the same motion in the picture.

    lag_s: how much later the picture shows it; subtracting it from frame times puts them right.
    correlation: multiple correlation of the gyroscope and the picture's motion at that lag, 0..1.
    confidence: 0..1, how far the peak stands out (see ``shards.lag``). seconds: of video compared.
    flagged: beyond the set lag with enough confidence. corrected: frame times were shifted by it.
    """

    device: str
    lag_s: float
    correlation: float
    confidence: float
    seconds: float
    flagged: bool
    corrected: bool = False


@dataclass(frozen=True)
class RecordingReport:
    """One recording. error: why nothing was made of it (None: it was read)."""

    dataset: str
    name: str
    person: str = ""
    error: str | None = None
    windows: int = 0
    devices: tuple[DeviceReport, ...] = ()
    lag: LagReport | None = None
    sync: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """A whole ingestion. settings: those that the shards depend on, as JSON."""

    reader: str
    source: str
    settings: Mapping[str, object]
    recordings: tuple[RecordingReport, ...]
