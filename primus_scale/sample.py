"""The data types that every other module uses: a window, and a batch of windows.

Shape legend, used in the whole project:
    B  windows in a batch        C  IMU channels (6: accelerometer xyz, gyroscope xyz)
    T  samples in a window       F  frames in a window
    D  width of an embedding     K  neighbours of a window
    N  windows of a larger set: the global batch over all ranks, a record, a data set

A *row* is the place of a window in such a batch or set. A *neighbour* of a window is a past window
of the support set with a similar embedding; a window *near* another is of the same recording,
seconds apart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field

if TYPE_CHECKING:  # its import takes seconds, and commands of ``shards`` need windows only
    import torch

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")
UNITS = ("m/s2", "m/s2", "m/s2", "rad/s", "rad/s", "rad/s")
JOINT_MODALITIES = ("video", "text")  # whose teachers may embed into one space
SIGNAL = "signal"  # the modality of teachers of the clean window itself
TEACHER_MODALITIES = (*JOINT_MODALITIES, SIGNAL)
IMU = "imu"  # the modality of the encoder's own embeddings
NO_LABEL = -1


def unknown_time() -> torch.Tensor:
    """The start time of a window whose time is not known, float64: it is near no other time."""
    import torch

    return torch.tensor(-torch.inf, dtype=torch.float64)


def window_uid(dataset: str, recording: str, device: str, start_s: float) -> int:
    """64-bit identity of a window, as a signed integer.

    Start times are rounded to microseconds: the clocks of recorders do not agree below that.
    """
    text = "\x1f".join((dataset, recording, device, str(round(start_s * 1e6))))
    return hash64(text)


def hash64(text: str) -> int:
    """First 8 bytes of the BLAKE2b digest of ``text``, as a signed integer."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True)
class WindowMeta:
    """What is known about a window besides its samples; ``meta.json`` of its record.

    ``device`` names a device within its recording, ``placement`` where it is worn ("left wrist"),
    ``person`` the wearer within the data set. ``texts`` are narrations. ``frame_times_s``: of the
    window's frames, on the clock of ``start_s``.

    ``session`` names one wearing: one person with one mounting, worn once, usually through several
    activities. It is unique within the data set for a device at a placement, which are part of the
    mounting (``session_id``). By default it is the recording's name. ``start_s`` is in seconds on
    the recording's own clock; the recordings of one session have no clock in common. So two windows
    of a session are near in time only if they are of one recording and their ``start_s`` are near;
    windows of its other recordings count as far. ``label`` is a class name or None.
    ``sync`` says how IMU, frames and narrations were put on one clock. ``axes`` says where x, y and
    z of the device point (empty: not known). ``capture`` names what was recorded at once and in one
    place, possibly of several people and in several recordings (empty: the data set names none).
    ``clock_zero`` is the date and time of 0 s of the recording's clock, in ISO 8601 (empty: not
    known).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    uid: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    dataset: str
    recording: str
    device: str
    placement: str
    person: str
    session: Annotated[str, Field(min_length=1)]
    start_s: float
    label: str | None = None
    texts: tuple[str, ...] = ()
    frame_times_s: tuple[float, ...] = ()
    sync: str = ""
    axes: str = ""
    capture: str = ""
    clock_zero: str = ""


@dataclass(frozen=True)
class Window:
    """One IMU segment, with the pictures and texts that are aligned to it.

    imu: float32 ``(C, T)`` in SI units. frames: F JPEG-encoded RGB pictures, possibly none.
    """

    imu: np.ndarray
    meta: WindowMeta
    frames: tuple[bytes, ...] = ()


class WindowFormat(NamedTuple):
    """What the samples ``(C, T)`` of windows mean: channels, their units, T, samples a second."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    samples: int
    rate_hz: float


class Origin(NamedTuple):
    """Identity and time of windows, in tensors of one shape.

    uid int64: of the window. recording, session int64: ids of its recording and of its session.
    start_s float64: seconds on the recording's clock, or ``unknown_time()``.
    """

    uid: torch.Tensor
    recording: torch.Tensor
    session: torch.Tensor
    start_s: torch.Tensor

    def at(self, rows: torch.Tensor | slice) -> Origin:
        """The origins at ``rows``."""
        return Origin(*(column[rows] for column in self))

    def same_moment(self, other: Origin, within_s: float) -> torch.Tensor:
        """Whether two are the same window, or start within ``within_s`` seconds in one recording.

        Bool, in the shape that the two broadcast to. With a negative ``within_s`` only the same
        window counts, with infinity the whole recording.
        """
        near = self.recording == other.recording
        if not math.isinf(within_s):  # the difference of unknown times is NaN
            near = near & ((self.start_s - other.start_s).abs() <= within_s)
        return (self.uid == other.uid) | near


def fill_times(start_s: torch.Tensor, uid: torch.Tensor) -> torch.Tensor:
    """Start times as float64 in the shape of ``uid``; a single time is repeated for all."""
    start_s = start_s.double()
    return start_s if start_s.ndim else start_s.to(uid.device).repeat(uid.shape)


@dataclass
class Batch:
    """Rows of a global batch as one rank sees them.

    imu ``(B, C, T)`` float32, in SI units; uid, recording and session ``(B,)`` int64; label
    ``(B,)`` int64 (NO_LABEL where unknown). embeddings: teacher embeddings ``(B, D)`` by modality,
    L2-normalised, zero where absent; float16, as they are stored, until ``to`` makes them float32.
    present: ``(B,)`` bool by modality. frames and texts: one tuple for each row, in live mode only,
    until the teachers have embedded them. start_s ``(B,)`` float64: see ``Origin``. span_s: seconds
    from the first to the last sample of a window.
    """

    imu: torch.Tensor
    uid: torch.Tensor
    recording: torch.Tensor
    session: torch.Tensor
    label: torch.Tensor
    embeddings: dict[str, torch.Tensor] = field(default_factory=dict)
    present: dict[str, torch.Tensor] = field(default_factory=dict)
    frames: Sequence[tuple[bytes, ...]] | None = None
    texts: Sequence[tuple[str, ...]] | None = None
    start_s: torch.Tensor = field(default_factory=unknown_time)
    span_s: float = 0.0

    def __post_init__(self) -> None:
        self.start_s = fill_times(self.start_s, self.uid)

    def __len__(self) -> int:
        return int(self.imu.shape[0])

    @property
    def origin(self) -> Origin:
        """Which windows the rows are."""
        return Origin(self.uid, self.recording, self.session, self.start_s)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on ``device``; embeddings are made float32 there."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            imu=move(self.imu),
            uid=move(self.uid),
            recording=move(self.recording),
            session=move(self.session),
            start_s=move(self.start_s),
            label=move(self.label),
            embeddings={name: move(value).float() for name, value in self.embeddings.items()},
            present={name: move(value) for name, value in self.present.items()},
        )
