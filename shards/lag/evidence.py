"""The lag at which a gyroscope explains the motion of a picture, and its confidence.

lag_s, correlation, confidence = find_lag([MotionPair(time_s, motion, grid_s, angle), ...])

The orientation of the device to the camera is unknown. So at every lag the picture's motion is
regressed on all three axes of the gyroscope. This multiple correlation does not depend on the
orientation. (Mair et al., ROBIO 2011, and Qiu et al., IEEE T-RO 2021, align cameras and IMUs in
this way.) The motion of the picture is that *between* two frames. It is compared with the mean of
the gyroscope over the same interval, so there is no bias of half an interval at any frame rate.
One filter removes slow changes from both (walking ahead, drift). Errors grow with the motion, so
times of much motion have less weight, and no single jerk decides.

Confidence is the probability, given the data, that the true lag lies within 0.1 s of the one found.
Each lag is a hypothesis, and so is "the picture does not show this device's motion". The latter has
the prior probability 1/2, and the lags share the other half. Bayes factors are those of a
regression under the g-prior of unit information (Liang et al., "Mixtures of g Priors", JASA 2008,
section 2). The number of samples is the effective one of two autocorrelated series (Bartlett, JRSS
1935: n over the sum of the products of their autocorrelations). So this one number accounts for
short video, for noise, and for the side peaks of periodic motion, which share the probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.special import logsumexp

REACH_S = 5.0  # lags that are compared, either way

_STEP_S = 0.01
_LAGS_S = _STEP_S * np.arange(-round(REACH_S / _STEP_S), round(REACH_S / _STEP_S) + 1)
_CONFIDENCE_S = 0.1  # error of the lag that the confidence allows
_SMOOTHING_S = 2.0  # slower changes are filtered out
_ENERGY_S = 1.0  # over which the energy of motion is averaged
_LEAST_ENERGY = 0.1  # in weights, as a share of the mean
_AXES = 3  # of the gyroscope: the first three columns below, before those of the picture
_SINGULAR_RATIO = 1e-9


class MeasuredLag(NamedTuple):
    """lag_s: how much later the picture is. correlation: multiple, of the weighted motion, 0..1.

    confidence: see the module.
    """

    lag_s: float
    correlation: float
    confidence: float


@dataclass(frozen=True)
class MotionPair:
    """A clip of the video, and a gyroscope around it.

    time_s ``(n + 1,)``: of the frames. motion ``(n, 3)``: of the picture from each frame to the
    next, in any unit, NaN where it was not measured. angle ``(m, 4)``: the gyroscope's integral in
    rad at ``grid_s`` ``(m,)``, and as its last column a count that rises where samples are missing.
    The grid is ``REACH_S`` longer than the clip at either end.
    """

    time_s: np.ndarray
    motion: np.ndarray
    grid_s: np.ndarray
    angle: np.ndarray
    _measured: np.ndarray = field(init=False, repr=False)
    _rate: np.ndarray = field(init=False, repr=False)
    _weights: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        measured = ~np.isnan(self.motion).any(axis=1)
        rate = np.where(measured[:, None], self.motion, 0.0) / np.diff(self.time_s)[:, None]
        energy = np.square(rate - _smooth(rate, measured, _SMOOTHING_S / self.interval_s))
        energy = (energy / np.maximum(energy.mean(axis=0), 1e-12)).mean(axis=1)
        local_energy = _smooth(energy[:, None], measured, _ENERGY_S / self.interval_s)[:, 0]
        object.__setattr__(self, "_measured", measured)
        object.__setattr__(self, "_rate", rate)
        object.__setattr__(self, "_weights", 1 / np.sqrt(local_energy + _LEAST_ENERGY))

    @property
    def interval_s(self) -> float:
        """Usual time between frames."""
        return float(np.median(np.diff(self.time_s)))

    @property
    def measured_s(self) -> float:
        """Seconds of video whose motion was measured."""
        return float(np.diff(self.time_s)[self._measured].sum())

    def aligned(self, lag_s: float) -> tuple[np.ndarray, int]:
        """Gyroscope and picture at this lag ``(n, 6)``, filtered and weighted, and rows compared.

        Rows that lack the gyroscope or the picture are 0, and are not among the rows compared.
        """
        edges_s = self.time_s - lag_s
        turned = np.diff([np.interp(edges_s, self.grid_s, each) for each in self.angle.T]).T
        counts = self._measured & (turned[:, _AXES] == 0)
        both = np.hstack([turned[:, :_AXES] / np.diff(self.time_s)[:, None], self._rate])
        filtered = both - _smooth(both, counts, _SMOOTHING_S / self.interval_s)
        return filtered * (counts * self._weights)[:, None], int(counts.sum())


def find_lag(pairs: Sequence[MotionPair]) -> MeasuredLag | None:
    """The lag of all pairs together; None where nothing moves in the video or in the gyroscope.

    Only lags count at which at least half as many rows can be compared as at the one with most
    rows. Confidence is 0 where the best is the first or last of them: the true one may lie beyond.
    """
    moments, counts = _moments(pairs)
    compared = counts >= counts.max() / 2
    shares, correlation = _explained(moments)
    if not shares[compared].any():
        return None
    guess = int(np.where(compared, shares.sum(axis=1), -1.0).argmax())
    rows_per_sample = _rows_per_sample(pairs, float(_LAGS_S[guess]), moments[guess])
    evidence = _evidence(shares, counts[:, None] / rows_per_sample).sum(axis=1)
    evidence[~compared] = -np.inf
    best = int(evidence.argmax())
    before, at, after = np.pad(evidence, 1, constant_values=-np.inf)[best : best + 3]
    lag_s, confidence = float(_LAGS_S[best]), 0.0
    if np.isfinite(before) and np.isfinite(after):
        near = np.abs(_LAGS_S - lag_s) <= _CONFIDENCE_S
        related, unrelated = logsumexp(evidence), np.log(compared.sum())
        confidence = float(np.exp(logsumexp(evidence[near]) - np.logaddexp(related, unrelated)))
        bend = 2 * at - before - after  # curvature of the parabola through the three
        lag_s += _STEP_S * float((after - before) / (2 * bend)) if bend > 0 else 0.0
    return MeasuredLag(lag_s, float(correlation[best]), confidence)


def _smooth(values: np.ndarray, counts: np.ndarray, width: float) -> np.ndarray:
    """Moving mean of values ``(n, c)`` over about ``width`` rows, of those that count."""
    size = 2 * round(width / 2) + 1
    total = uniform_filter1d(values * counts[:, None], size, axis=0, mode="constant")
    share = uniform_filter1d(counts.astype(np.float64), size, mode="constant")
    return np.asarray(total / np.maximum(share, 0.5 / size)[:, None])


def _moments(pairs: Sequence[MotionPair]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of products of gyroscope and picture ``(lags, 6, 6)``, and rows in each ``(lags,)``."""
    moments = np.zeros((len(_LAGS_S), 2 * _AXES, 2 * _AXES))
    counts = np.zeros(len(_LAGS_S))
    for pair in pairs:
        for number, lag_s in enumerate(_LAGS_S.tolist()):
            both, count = pair.aligned(lag_s)
            moments[number] += both.T @ both
            counts[number] += count
    return moments, counts


def _explained(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared multiple correlation of each direction of motion ``(lags, 3)``, and correlation.

    The correlation ``(lags,)`` is that of all directions together, not squared. A direction
    without motion has 0.
    """
    inverse = np.linalg.pinv(moments[:, :_AXES, :_AXES], rcond=_SINGULAR_RATIO, hermitian=True)
    cross = moments[:, :_AXES, _AXES:]
    explained = np.einsum("lij,lik,lkj->lj", cross, inverse, cross)
    total = np.einsum("ljj->lj", moments[:, _AXES:, _AXES:])
    floor = np.finfo(np.float64).tiny
    shares = np.clip(explained / np.maximum(total, floor), 0, 1)
    pooled = explained.sum(axis=1) / np.maximum(total.sum(axis=1), floor)
    return shares, np.sqrt(np.clip(pooled, 0, 1))


def _rows_per_sample(pairs: Sequence[MotionPair], lag_s: float, moments: np.ndarray) -> np.ndarray:
    """Number of rows for one independent sample, for each direction of motion ``(3,)``.

    It is Bartlett's sum over products of autocorrelations. That of the gyroscope is the mean over
    its three axes after decorrelation. Autocorrelation raises R^2 of series that have nothing in
    common.
    """
    rows = [pair.aligned(lag_s)[0] for pair in pairs]
    inverse = np.linalg.pinv(moments[:_AXES, :_AXES], rcond=_SINGULAR_RATIO, hermitian=True)
    energy = np.maximum(np.diagonal(moments)[_AXES:], np.finfo(np.float64).tiny)
    total = np.zeros(_AXES)
    longest = round(REACH_S / max(pair.interval_s for pair in pairs))
    for shift in range(longest + 1):
        products = sum(
            (each[: len(each) - shift].T @ each[shift:] for each in rows if len(each) > shift),
            np.zeros_like(moments),
        )
        gyroscope = np.trace(inverse @ products[:_AXES, :_AXES]) / _AXES
        picture = np.diagonal(products)[_AXES:] / energy
        total += (1 if shift == 0 else 2) * gyroscope * picture
    return np.maximum(total, 1.0)


def _evidence(shares: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Log Bayes factor of a regression with R^2 ``shares`` against none, with g = n."""
    gain = (samples - 1 - _AXES) / 2 * np.log1p(samples)
    return np.asarray(gain - (samples - 1) / 2 * np.log1p(samples * (1 - shares)))
