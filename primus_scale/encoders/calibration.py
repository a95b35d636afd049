"""A linear step on features, fitted without labels, so that a linear probe can use them at once.

With m and s the mean and deviation of each feature over windows, z = (f - m) / s. ``scaling`` gives
z. ``whitening`` also takes out what differs between sessions, such as how a device sits: with N the
covariance of the sessions' mean z, and D features,

    (N + tr(N) / D * I)^(-1/2) z.

If a session holds one activity only, the activity is taken out as well. The method is nuisance
normalisation of speaker recognition (Hatch et al., Interspeech 2006, WCCN), with the session as the
nuisance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

CalibrationKind = Literal["scaling", "whitening"]

SMALLEST_DEVIATION = 1e-6  # of a feature, relative to the largest; below it is constant


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

    Constant features become 0. Raises ValueError where ``whitening`` finds one session only.
    """
    features = features.astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > SMALLEST_DEVIATION * deviation.max(initial=0.0)
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
    ridge = np.trace(between) / len(between) * np.eye(len(between))
    variance, direction = np.linalg.eigh(between + ridge)
    return Calibration(mean, scale[:, None] * (direction / np.sqrt(variance)) @ direction.T)
