"""A linear step on features, fitted without labels, so that a linear probe can use them at once.

With m and s the mean and deviation of each feature over windows, z = (f - m) / s. ``scaling`` gives
z. ``whitening`` also takes out what differs between sessions, such as how a device sits: with N the
covariance of the sessions' mean z, and D features,

    (N + tr(N) / D * I)^(-1/2) z.

If a session holds one activity only, the activity is taken out as well. The method is nuisance
normalisation of speaker recognition (Hatch et al., Interspeech 2006, WCCN), with the session as the
nuisance.

``FeatureCalibration`` is the step as a layer, with which an encoder is exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

CalibrationKind = Literal["scaling", "whitening"]

SMALLEST_DEVIATION = 1e-6  # of a feature, relative to the largest; below it is constant
ROUNDING = float(np.finfo(np.float32).eps)  # of features; a deviation below it is constant, too


@dataclass(frozen=True)
class Calibration:
    """A linear map of features: ``(f - mean) @ weight``.

    mean ``(D,)`` and weight ``(D, D)``, float64.
    """

    mean: np.ndarray
    weight: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Calibrated features ``(n, D)`` float64 of features ``(n, D)``."""
        return (features - self.mean) @ self.weight


def fit_calibration(
    features: np.ndarray, session: np.ndarray, kind: CalibrationKind
) -> Calibration:
    """The calibration of ``kind`` for features ``(n, D)``; session ``(n,)`` names each window's.

    Constant features become 0. Raises ValueError where ``whitening`` finds one session only, or
    sessions that are alike to the last digit, as those of an encoder whose features are constant.
    """
    features = features.astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    smallest = SMALLEST_DEVIATION * deviation.max(initial=0.0)
    varies = deviation > np.maximum(smallest, ROUNDING * np.abs(mean))
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    if kind == "scaling":
        return Calibration(mean, np.diag(scale))
    names, of = np.unique(session, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            "whitening compares sessions, and all windows are of one; give windows of more "
            "sessions, or use scaling"
        )
    sums = np.zeros((len(names), features.shape[1]))
    np.add.at(sums, of, (features - mean) * scale)
    between = np.cov(sums / np.bincount(of)[:, None], rowvar=False, bias=True)
    between = np.atleast_2d(between)
    if not between.any():
        raise ValueError(
            "whitening compares sessions, and the features are the same in all; the encoder gives "
            "constant features, or the sessions hold the same windows: use scaling"
        )
    ridge = np.trace(between) / len(between) * np.eye(len(between))
    variance, direction = np.linalg.eigh(between + ridge)
    return Calibration(mean, scale[:, None] * (direction / np.sqrt(variance)) @ direction.T)


class FeatureCalibration(nn.Module):
    """A fitted calibration as a layer: features ``(B, D)`` -> ``(B, D)`` of the same precision.

    Buffers, float32: mean ``(D,)``, and weight ``(D,)`` for ``scaling`` or ``(D, D)`` for
    ``whitening``. It computes in float32 also under autocast, since differences of close numbers
    would lose most digits in bfloat16. A new layer has no values yet; ``of`` and
    ``load_state_dict`` set them.
    """

    mean: torch.Tensor
    weight: torch.Tensor

    def __init__(self, width: int, kind: CalibrationKind) -> None:
        super().__init__()
        shape = (width,) if kind == "scaling" else (width, width)
        self.register_buffer("mean", torch.empty(width))
        self.register_buffer("weight", torch.empty(shape))

    @classmethod
    def of(cls, fitted: Calibration, kind: CalibrationKind) -> FeatureCalibration:
        """The layer of a calibration that ``fit_calibration`` has fitted as ``kind``."""
        layer = cls(len(fitted.mean), kind)
        weight = fitted.weight.diagonal() if kind == "scaling" else fitted.weight
        layer.mean.copy_(torch.from_numpy(fitted.mean))
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        return layer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Calibrated features."""
        with torch.autocast(features.device.type, enabled=False):
            centred, weight = features.float() - self.mean.float(), self.weight.float()
            calibrated = centred * weight if weight.ndim == 1 else centred @ weight
        return calibrated.to(features.dtype)
