"""Hydra: features of a window by competing random convolutions, and their scaling.

Random kernels of length 9 stand in groups of 8, at dilations of powers of two. At each sample the
kernels of a group compete. A kernel has two features: the sum of its responses where it has the
greatest one (the *soft count*), and how often it has the least (the *hard count*). Half of the 64
groups see the window, the others its first difference. With several channels, a group sees the sum
of some of them, chosen at random as MiniRocket's kernels choose theirs.

Source: Dempster, Schmidt, Webb, "Hydra: competing convolutional kernels for fast and accurate time
series classification", Data Mining and Knowledge Discovery 2023, arXiv 2203.13652, section 3.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from primus_scale.evaluate.minirocket import BATCH_WINDOWS, KERNEL_LENGTH, choose_channels
from primus_scale.evaluate.multirocket import FEATURES, MultiRocket, series_and_difference

GROUPS, KERNELS = 64, 8
SMALLEST_SCALE = 1e-6  # of a feature relative to its mean; below it the feature is constant


class _Groups(NamedTuple):
    """Groups at one dilation; used ``(G, C)`` of 0 and 1: channels. weight ``(G * 8, 1, 9)``."""

    dilation: int
    used: torch.Tensor
    weight: torch.Tensor


class Hydra:
    """The transform of windows ``(n, C, T)``; T must be at least 10 samples. Nothing is fitted.

    shape: (C, T). seed: of kernels and channels.
    """

    def __init__(self, shape: tuple[int, int], seed: int = 0) -> None:
        channels, samples = shape
        generator = np.random.default_rng(seed)
        self._parts = [  # of the series, of its difference
            [
                _draw_groups(2**exponent, channels, generator)
                for exponent in range(_dilations(length))
            ]
            for length in (samples, samples - 1)
        ]

    def features(self, imu: np.ndarray) -> np.ndarray:
        """Features ``(n, D)`` float32: 1,024 for each dilation, as roots of the counts.

        A soft count below zero, where all responses of a group are negative, is zero.
        """
        both = series_and_difference(imu)
        batches = zip(*(torch.from_numpy(s).split(BATCH_WINDOWS) for s in both), strict=True)
        rows = []
        with torch.inference_mode():
            for batch in batches:
                pairs = zip(batch, self._parts, strict=True)
                counts = [_count(series, groups) for series, part in pairs for groups in part]
                rows.append(torch.cat(counts, dim=1))
            return torch.cat(rows).clamp_(min=0).sqrt_().numpy()


def multirocket_hydra_features(fitted: np.ndarray, imu: np.ndarray) -> np.ndarray:
    """MultiRocket's features of windows ``(n, C, T)``, fitted on others, and then Hydra's."""
    transforms = MultiRocket(fitted), Hydra(imu.shape[1:])
    return np.concatenate([one.features(imu) for one in transforms], axis=1)


def multirocket_hydra_scaler() -> ColumnTransformer:
    """What scales MultiRocket's features ``(n, 10080)`` with Hydra's counts behind them."""
    return ColumnTransformer(
        [
            ("multirocket", StandardScaler(), slice(0, FEATURES)),
            ("hydra", SparseScaler(), slice(FEATURES, None)),
        ]
    )


class SparseScaler(TransformerMixin, BaseEstimator):
    """Standardises counts ``(n, D)`` and leaves zeros as they are.

    To a feature's deviation the fourth power of its share of zeros is added, so that features that
    are nearly always zero stay small.
    """

    def fit(self, counts: np.ndarray, label: None = None) -> Self:
        """Take the mean and the scale of each feature."""
        zeros = (counts == 0).mean(axis=0)
        self.mean_ = counts.mean(axis=0, dtype=np.float64)
        scale = counts.std(axis=0, dtype=np.float64) + zeros**4
        self.scale_ = np.where(scale > SMALLEST_SCALE * self.mean_, scale, 1.0)
        return self

    def transform(self, counts: np.ndarray) -> np.ndarray:
        """The scaled counts, float32."""
        scaled = (counts - self.mean_) / self.scale_ * (counts != 0)
        return scaled.astype(np.float32)


def _dilations(samples: int) -> int:
    """How many powers of two are dilations of a kernel that fits into a window."""
    return int(np.log2((samples - 1) / (KERNEL_LENGTH - 1))) + 1


def _draw_groups(dilation: int, channels: int, generator: np.random.Generator) -> _Groups:
    groups = GROUPS // 2
    used = choose_channels(groups, channels, generator)
    weight = generator.standard_normal((groups * KERNELS, 1, KERNEL_LENGTH))
    weight -= weight.mean(axis=2, keepdims=True)
    weight /= np.abs(weight).sum(axis=2, keepdims=True)
    return _Groups(dilation, torch.from_numpy(used), torch.from_numpy(weight).float())


def _count(imu: torch.Tensor, groups: _Groups) -> torch.Tensor:
    """Soft and hard counts ``(B, G * 8 * 2)`` of windows ``(B, C, T)``."""
    dilation, used, weight = groups
    padding = dilation * (KERNEL_LENGTH // 2)
    sums = used @ imu  # (B, G, T)
    output = functional.conv1d(
        sums, weight, padding=padding, dilation=dilation, groups=len(used)
    ).unflatten(1, (len(used), KERNELS))  # (B, G, 8, T)
    greatest, winner = output.max(dim=2)
    loser = output.min(dim=2).indices  # as argmin, in a quarter of its time
    nothing = torch.zeros(*winner.shape[:2], KERNELS)
    soft = nothing.scatter_add(2, winner, greatest)
    hard = nothing.scatter_add(2, loser, torch.ones_like(greatest))
    return torch.cat([soft, hard], dim=2).flatten(1)
