"""MultiRocket: MiniRocket's kernels on a window and its first difference, pooled in four ways.

Of a convolution minus a bias: the share of positive samples (PPV), their mean (MPV), their mean
index (MIPV), and the length of their longest stretch (LSPV). The paper takes 49,728 features. Here
they are about as many as MiniRocket's: many more would mostly cost time with some thousand windows.

Source: Tan, Dempster, Bergmeir, Webb, "MultiRocket: multiple pooling operators and transformations
for fast and effective time series classification", Data Mining and Knowledge Discovery 2022, arXiv
2102.00457, section 3.
"""

from __future__ import annotations

import numpy as np
import torch

from primus_scale.evaluate.minirocket import KERNEL_LENGTH, MiniRocket

BIASES = 1260  # of each of the two series: 15 of each of the 84 kernels
POOLS = 4
FEATURES = 2 * BIASES * POOLS
NO_INDEX = -1.0  # the mean index where no sample is positive, as in the paper


class MultiRocket:
    """The transform, fitted on windows ``(n, C, T)``; T must be at least 10 samples."""

    def __init__(self, imu: np.ndarray, seed: int = 0) -> None:
        if imu.shape[2] <= KERNEL_LENGTH:
            raise ValueError(
                f"MultiRocket takes windows of at least {KERNEL_LENGTH + 1} samples, and these "
                f"have {imu.shape[2]}; write longer windows, or leave the arm out"
            )
        self._parts = [
            MiniRocket(series, seed + number, BIASES, four_pools)
            for number, series in enumerate(series_and_difference(imu))
        ]

    def features(self, imu: np.ndarray) -> np.ndarray:
        """Features ``(n, 10080)`` float32 of windows ``(n, C, T)``."""
        pairs = zip(self._parts, series_and_difference(imu), strict=True)
        return np.concatenate([part.features(series) for part, series in pairs], axis=1)


def series_and_difference(imu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows ``(n, C, T)``, and the differences of neighbouring samples ``(n, C, T-1)``."""
    return imu, np.diff(imu, axis=2)


def four_pools(output: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
    """PPV, MPV, MIPV and LSPV at each bias: ``(B, K, T)`` and ``(K, F)`` -> ``(B, K, 4 F)``."""
    samples = output.shape[2]
    series = output.permute(2, 0, 1).contiguous()  # with time first, sums add whole rows
    weights = torch.stack([torch.ones(samples), torch.arange(samples, dtype=torch.float32)])
    found = []
    for bias in biases.unbind(1):
        above = (series - bias).clamp_(min=0)  # (T, B, K)
        positive = (above > 0).float()
        count, index = torch.tensordot(weights, positive, dims=1)  # (B, K) each
        some = count.clamp(min=1)
        mean_index = torch.where(count > 0, index / some, NO_INDEX)
        found += [count / samples, above.sum(0) / some, mean_index, _longest_stretch(positive)]
    return torch.stack(found, dim=2)


def _longest_stretch(positive: torch.Tensor) -> torch.Tensor:
    """The most ones in a row along time: ``(T, ...)`` of 0 and 1 -> ``(...)``."""
    run, longest = torch.zeros_like(positive[0]), torch.zeros_like(positive[0])
    for now in positive:
        run.add_(1).mul_(now)
        torch.maximum(longest, run, out=longest)
    return longest
