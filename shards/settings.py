"""What a user may set of an ingestion, with the defaults of formats.md's rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from shards.recording import WindowSchema


@dataclass(frozen=True)
class IngestSettings:
    """Everything that the shards depend on beside the input.

    channels, units, rate_hz, window_s: of the windows (a reader's schema gives the defaults).
    hop_s: between windows where nothing is narrated. max_overlap: share of its length that a window
    may have in common with another of its device. require: of {"video", "text"}; windows without
    are refused. frames: pictures a window, evenly spaced; short_side: their shorter side, pixels.
    gap_s: longest spacing of samples that is no gap (but 2.5 nominal spacings are never one).
    acc_range: median |a| of a recording in m/s2. max_lag_s: beyond it a recording is flagged.
    correct_lag: shift frames and narrations of flagged recordings. seed: of the windows' order.
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
    gap_s: float = 0.05
    acc_range: tuple[float, float] = (8.0, 12.0)
    max_lag_s: float = 0.2
    correct_lag: bool = False
    seed: int = 0
    shard_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name in ("rate_hz", "window_s", "hop_s", "gap_s", "max_lag_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.max_overlap < 1:
            raise ValueError(f"max_overlap must lie in 0..1 (1 excluded), got {self.max_overlap}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        low, high = self.acc_range
        if not low < high:
            raise ValueError(
                f"acc_range must be the lower and then the higher bound, got {low} {high}"
            )
        if self.frames < 0 or self.short_side < 16:
            raise ValueError("frames must not be negative, and short_side at least 16 pixels")
        unknown = set(self.require) - {"video", "text"}
        if unknown:
            raise ValueError(f"require names {sorted(unknown)}; known are video and text")
        if len(self.channels) != len(self.units):
            raise ValueError(f"units {self.units} must be one for each of channels {self.channels}")

    @classmethod
    def of(cls, schema: WindowSchema, **said: Any) -> Self:
        """Those of a reader's schema, but for what is said; ``hop_s`` is a window unless said."""
        chosen: dict[str, Any] = {**asdict(schema), **said}
        return cls(**{"hop_s": chosen["window_s"], **chosen})

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.rate_hz)
