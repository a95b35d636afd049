"""The signal teacher: hand-crafted features of the clean window as an embedding.

It needs no pictures and no narrations, and is fitted to no data: all constants stand here. So
embeddings of any folders may be mixed. From the features of ``signal.features`` to an embedding:

1. Each channel is divided by the size that is usual for its unit (``USUAL_SIZES``).
2. Amplitudes (means, deviations, quantiles) go through asinh: as they are up to the usual size, by
   their logarithm above it, so that a blow does not outweigh all else.
3. With d the number of features in a group, each becomes (x - centre) / (spread * sqrt(d)), with
   the group's constants of ``GROUPS``. So every group has about the same share of a cosine, however
   many features it has.
4. The vector is scaled to unit length, as for every teacher.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from primus_scale.sample import SIGNAL, WindowFormat
from primus_scale.signal.features import feature_groups
from primus_scale.teachers.base import Teacher, digest_text

VERSION = 1  # of the method; another one has other keys
USUAL_SIZES = {"m/s2": 9.81, "rad/s": 1.0}  # gravity; limbs that move. Other units: 1


class Group(NamedTuple):
    """How a group of features is scaled: ``amplitude`` by asinh first, then centre and spread."""

    centre: float
    spread: float
    amplitude: bool = False


# Mean and deviation of each group over windows of 5 s at 50 Hz, rounded: the built-in data's people
# who walk, sit and lie, and takes with sensors at nine places. Other data may fit less well: they
# keep a group from ruling the cosine, and what all windows have in common from filling it.
GROUPS = {
    "mean": Group(0.3, 0.5, amplitude=True),
    "deviation": Group(0.4, 0.4, amplitude=True),
    "quantiles": Group(0.3, 0.8, amplitude=True),
    "log_energy": Group(-2.0, 3.0),
    "log_bands": Group(-3.0, 4.0),
    "main_hz": Group(1.5, 2.0),
    "entropy": Group(2.8, 0.8),
    "correlations": Group(0.0, 0.35),
}


class HandcraftedFeatures(Teacher):
    """Embeddings of ``windows`` by their hand-crafted features.

    A unit is the samples of a window, float32, as bytes (``window_samples``). Features are computed
    on the CPU; ``device`` is where embeddings go.
    """

    def __init__(
        self, name: str, windows: WindowFormat, device: torch.device | str, batch: int
    ) -> None:
        self._windows = windows
        sizes = [USUAL_SIZES.get(unit, 1.0) for unit in windows.units]
        self._sizes = np.array(sizes)[:, None]
        blank = np.zeros((1, len(windows.channels), windows.samples))
        super().__init__(
            name,
            SIGNAL,
            dim=sum(group.shape[1] for group in feature_groups(blank, windows.rate_hz).values()),
            weights=digest_text(name, str(VERSION), json.dumps([USUAL_SIZES, GROUPS])),
            preprocessing=windows._asdict(),
            device=device,
            batch=batch,
        )

    def forward(self, units: Sequence[bytes]) -> torch.Tensor:
        """Scaled features ``(len(units), D)`` of the samples of windows."""
        shape = len(units), len(self._windows.channels), self._windows.samples
        imu = np.frombuffer(b"".join(units), np.float32).reshape(shape)
        groups = feature_groups(imu / self._sizes, self._windows.rate_hz)
        scaled = [_scale(features, GROUPS[name]) for name, features in groups.items()]
        return torch.from_numpy(np.concatenate(scaled, axis=1)).to(self.device)


def _scale(features: np.ndarray, group: Group) -> np.ndarray:
    """Features ``(n, d)`` of a group, so that their squared length is about 1."""
    values = np.arcsinh(features) if group.amplitude else features
    return (values - group.centre) / (group.spread * np.sqrt(features.shape[1]))
