"""Reports of an ingestion: one for each recording, and all of them in ``ingest.json``.

Everything here is a pure function of input and settings: no times of day, no speeds. So the same
input gives the same bytes with any number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

INGEST_NAME = "ingest.json"

# Why a planned window was refused. The first that applies is counted.
NO_SENSOR = "no sensor"  # the device lacks a sensor that the schema's channels need
GRAVITY = "implausible gravity"  # |a| where the device was still, outside 8 to 12 m/s2
OUTSIDE = "outside the IMU"  # before its first or after its last sample
INVALID = "invalid records"  # a gap made by records that are invalid
GAP = "gap"
CLOCK = "clock step"  # the sensor's clock was set forward or back within it
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
    CLOCK,
    SATURATED,
    DEAD,
    COPIED,
    NO_VIDEO,
    NO_NARRATION,
)


FLAG, REFUSE = "flag", "refuse"  # verdicts; what is accepted has no finding


@dataclass(frozen=True)
class Finding:
    """A gate's verdict on a sensor or a device that it flags or refuses.

    gate: its name (``shards.signal.sensor_gates``). where: the device, or the sensor of a device.
    verdict: FLAG or REFUSE. figure, threshold: the measured value, and its limit.
    setting: the field of ``IngestSettings`` that holds the threshold; ``flag`` changes it.
    text: a whole sentence with all of this.
    """

    gate: str
    where: str
    verdict: str
    figure: float
    threshold: float
    setting: str
    flag: str
    text: str


@dataclass(frozen=True)
class SensorReport:
    """What the signal path found in one sensor's samples.

    Rows of the file. samples: all, as read. untimed: without a time. invalid: with NaN, or beyond
    what any sensor gives. duplicates: the same time and values as a row before. out_of_order:
    earlier than the row before. overlapping: at times that are recorded already, after a clock was
    set back. shared_times: with other values at the time of another row; they were put on one
    clock. zeros: of runs of exact zeros. repeated: of runs of one value. spikes: isolated,
    far from both neighbours. saturated: at full scale. All but out_of_order, shared_times and
    saturated are left out; ``dropped`` is how many.

    rate_hz: samples a second over the segments between gaps. gaps and gap_s: number and total
    length. filled: samples missing in shorter spacings, over which the signal is interpolated.
    clock_steps: places where the clock was set forward or back. limit: full scale in SI
    units, where known. usual_peak: size of an axis that one row in a thousand exceeds. notes: what
    was done to the times.
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
    overlapping: int = 0
    shared_times: int = 0
    zeros: int = 0
    repeated: int = 0
    spikes: int = 0
    filled: int = 0
    clock_steps: int = 0
    usual_peak: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Rows left out, for whatever reason."""
        left_out = (self.untimed, self.invalid, self.duplicates, self.overlapping)
        return sum((*left_out, self.zeros, self.repeated, self.spikes))


@dataclass(frozen=True)
class TiltReport:
    """How fast gravity's direction turned, against what the gyroscope says.

    axes: which of the gyroscope's axes, with which sign, turn about the accelerometer's x, y and z
    (("+x", "+y", "+z") where all is right; axes at rest or along gravity stay unknown). slope:
    of gravity's turning over the gyroscope's; 1 where units are right, 57.3 or 1 / 57.3 where
    degrees and radians were mixed up. correlation: of the two with the axes as they are named, -1
    to 1; best_correlation: with ``axes``. turned_deg: turning of gravity in all that was compared.
    """

    slope: float
    correlation: float
    axes: tuple[str, str, str]
    best_correlation: float
    turned_deg: float


@dataclass(frozen=True)
class DeviceReport:
    """One device of a recording.

    median_acc: of |acceleration|, m/s2 (None: no accelerometer). mean_acc: length of the mean
    vector of five seconds, median over all, m/s2. gravity: of |acceleration| over
    seconds where the device was still or turned slowly, m/s2 (None: there were too few).
    tilt: gravity's turning against the gyroscope (None: too little turning, or no gyroscope).
    planned_by_label, refused_by_label: windows by label (those without: "(none)"); the second by
    reason. findings: of its gates and of those of its sensors.
    axes: where x, y and z point, as its maker or its calibration says (empty: not known).
    gravity_direction: where the accelerometer's reading at rest points on these axes, which is up:
    mean of unit vectors over the slow seconds (all, where none is slow). Its length is 1
    where the device never turned, and small where it turned in all directions (None: no
    accelerometer).
    """

    name: str
    placement: str
    nominal_rate_hz: float | None
    start_s: float
    end_s: float
    median_acc: float | None
    sensors: tuple[SensorReport, ...]
    windows: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    gravity: float | None = None
    tilt: TiltReport | None = None
    planned_by_label: Mapping[str, int] = field(default_factory=dict)
    refused_by_label: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    axes: str = ""
    gravity_direction: tuple[float, float, float] | None = None
    mean_acc: float | None = None


CONFIDENT = 0.95  # least confidence of a lag that counts


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
    """One recording.

    session: the wearing that it is of (``WindowMeta.session``).
    error: why nothing was made of it (None: it was read). left_out: why devices were not used,
    those whose sensors a gate refused among them. unread: lines on files within its own.
    """

    dataset: str
    name: str
    person: str = ""
    session: str = ""
    error: str | None = None
    windows: int = 0
    devices: tuple[DeviceReport, ...] = ()
    lag: LagReport | None = None
    sync: str = ""
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """A whole ingestion. settings: those that the shards depend on, as JSON.

    unread: lines on files, folders and links of the source that belong to no recording. copies:
    lines on recordings that hold the same windows.
    """

    reader: str
    source: str
    settings: Mapping[str, object]
    recordings: tuple[RecordingReport, ...]
    unread: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
