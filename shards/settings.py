"""The settings of an ingestion: thresholds of gates, and all that the shards depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from primus_scale.signal.gaps import GAP_S
from primus_scale.signal.plausible import (
    GRAVITY_RANGE,
    LEAST_RATE_SHARE,
    MOST_RATE_HZ,
    MOST_ROTATION,
    TURNING_FACTOR,
)
from shards.recording import WindowSchema

SHARED_TIMES = ("first", "middle", "last")
SESSION_BY = ("auto", "person", "recording")


@dataclass(frozen=True, kw_only=True)
class SensorLimits:
    """Thresholds of the gates of sensors and devices (``shards.signal.sensor_gates``).

    gap_s: longest spacing of samples that is no gap; up to 1.5 usual spacings never are one, nor up
    to 2.5 where these last 90 ms at most.
    min_rate_share: of the windows' rate; slower sensors are refused, for they lack most of the
    windows' band (at 0.35, sensors of 17.5 Hz may become windows of 50 Hz). max_rate_hz: faster
    ones are refused, as their times must be in another unit.
    shared_times: where rows share a time and it is unknown to which of them it belongs: to the
    "first" (packets stamped as they begin, times cut to whole seconds), the "middle" (rounded)
    or the "last" (packets stamped as they end); None refuses such sensors. max_jitter_s: standard
    deviation of such shared times about one clock, above which the sensor is refused.
    repeat_s: longest time that a sensor repeats one value; ten times as long for those of coarse
    steps. spike_ratio: most distance of a lone sample from its neighbours, over that of 99 % of the
    samples. Above these shares of rows a sensor is flagged: max_dropped (for all reasons),
    max_shared (with shared times), max_repeated (zeros and repetitions), max_spikes; above
    max_clock_steps steps of its clock; above max_rate_error, a share, off its nominal rate.
    acc_range: |a| in m/s2 over seconds in which a device is still or turns slowly. high_rotation,
    max_rotation: rad/s that one row in a thousand exceeds; flagged above the first (2,000 deg/s),
    refused above the second (4,000 deg/s). tilt_factor: by which gravity may turn faster or slower
    than the gyroscope says; min_agreement: their correlation, below which other axes or signs are
    named that agree better. max_acc, max_value: largest |value| in m/s2 and in other SI units,
    beyond which a row is damaged. max_refused: share of a label's windows.
    """

    gap_s: float = GAP_S
    min_rate_share: float = LEAST_RATE_SHARE
    max_rate_hz: float = MOST_RATE_HZ
    shared_times: str | None = None
    max_jitter_s: float = 0.0015
    repeat_s: float = 1.0
    spike_ratio: float = 8.0
    max_dropped: float = 0.05
    max_shared: float = 0.01
    max_repeated: float = 0.01
    max_spikes: float = 0.001
    max_clock_steps: int = 0
    max_rate_error: float = 0.05
    acc_range: tuple[float, float] = GRAVITY_RANGE
    high_rotation: float = 35.0
    max_rotation: float = MOST_ROTATION
    tilt_factor: float = TURNING_FACTOR
    min_agreement: float = 0.5
    max_acc: float = 1e4
    max_value: float = 1e9
    max_refused: float = 0.2

    def check_limits(self) -> None:
        """ValueError naming the limit that is out of its range."""
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.max_clock_steps < 0:
            raise ValueError(f"max_clock_steps must not be negative, got {self.max_clock_steps}")
        if self.shared_times not in (None, *SHARED_TIMES):
            raise ValueError(
                f"shared_times must be one of {', '.join(SHARED_TIMES)}, got {self.shared_times}"
            )
        low, high = self.acc_range
        if not low < high:
            raise ValueError(
                f"acc_range must be the lower and then the higher bound, got {low} {high}"
            )
        if not self.tilt_factor > 1:
            raise ValueError(f"tilt_factor must be above 1, got {self.tilt_factor}")
        if not self.high_rotation <= self.max_rotation:
            raise ValueError(
                f"high_rotation must not be above max_rotation, got {self.high_rotation} and "
                f"{self.max_rotation}"
            )


_POSITIVE = (
    *("gap_s", "max_rate_hz", "max_jitter_s", "repeat_s", "spike_ratio"),
    *("max_rate_error", "high_rotation", "max_rotation", "max_acc", "max_value"),
)
_SHARES = (
    "min_rate_share",
    "max_dropped",
    "max_shared",
    "max_repeated",
    "max_spikes",
    "max_refused",
)


@dataclass(frozen=True)
class IngestSettings(SensorLimits):
    """Everything that the shards depend on, apart from the input.

    channels, units, rate_hz, window_s: of the windows (a reader's schema gives the defaults).
    hop_s: between windows where nothing is narrated. max_overlap: share of its length that a window
    may have in common with another of its device. require: of {"video", "text"}; windows without
    are refused. frames: pictures a window, evenly spaced; short_side: their shorter side, pixels.
    max_lag_s: beyond it a recording is flagged.
    correct_lag: shift frames and narrations of flagged recordings. session_by: what a session is,
    as the reader says ("auto"), or the recordings of a person, or a recording. shard_bytes: size of
    a shard.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate_hz: float
    window_s: float
    hop_s: float
    max_overlap: float = 0.5
    require: tuple[str, ...] = ()
    frames: int = 8
    short_side: int = 256
    jpeg_quality: int = 90
    max_lag_s: float = 0.2
    correct_lag: bool = False
    session_by: str = "auto"
    shard_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        self.check_limits()
        for name in ("rate_hz", "window_s", "hop_s", "max_lag_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.max_overlap < 1:
            raise ValueError(f"max_overlap must lie in 0..1 (1 excluded), got {self.max_overlap}")
        if self.frames < 0 or self.short_side < 16:
            raise ValueError("frames must not be negative, and short_side at least 16 pixels")
        if self.session_by not in SESSION_BY:
            raise ValueError(
                f"session_by must be one of {', '.join(SESSION_BY)}, got {self.session_by}"
            )
        unknown = set(self.require) - {"video", "text"}
        if unknown:
            raise ValueError(f"require names {sorted(unknown)}; known are video and text")
        if len(self.channels) != len(self.units):
            raise ValueError(f"units {self.units} must be one for each of channels {self.channels}")

    @classmethod
    def of(cls, schema: WindowSchema, **given: Any) -> Self:
        """A reader's schema with the given settings; ``hop_s`` is by default a window's length."""
        chosen: dict[str, Any] = {**asdict(schema), **given}
        return cls(**{"hop_s": chosen["window_s"], **chosen})

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.rate_hz)
