"""MiniRocket: features of a window by fixed convolutions, as a baseline for encoders.

84 kernels of length 9, each with six weights -1 and three weights 2, at dilations that grow
exponentially. A feature is the share of samples at which a convolution exceeds a bias (PPV).
Biases are quantiles of the convolution of a training window, which need no labels. With several
channels, a kernel at a dilation sums its convolutions over some of them, chosen at random.

Source: Dempster, Schmidt, Webb, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time
Series Classification", KDD 2021, arXiv 2012.08791, section 3; for several channels its appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

KERNEL_LENGTH = 9
HEAVY_WEIGHTS = 3  # of a kernel's nine weights are 2, the others -1
FEATURES = 9996  # in all: the multiple of 84 below 10,000
MOST_DILATIONS = 32
BATCH_WINDOWS = 128  # in one pass: (128, 84, T) float32 is 11 MB at T = 250
_GOLDEN_RATIO = (5**0.5 + 1) / 2  # its multiples modulo 1 spread quantiles evenly

# From convolutions (B, K, T) and F biases of each kernel (K, F) to features (B, K, D).
Pool = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class _Convolutions(NamedTuple):
    """All kernels at one dilation.

    weight ``(84, C, 9)``: 0 for channels that a kernel leaves out. biases ``(84, F)``.
    """

    dilation: int
    weight: torch.Tensor
    biases: torch.Tensor


class MiniRocket:
    """The transform, fitted on windows ``(n, C, T)``; T must be at least 9 samples.

    seed: of the choice of channels and of the windows whose convolutions give the biases.
    biases: of all kernels at all dilations. pool: makes features of them; by default one of each
    bias, the share of samples above it.
    """

    def __init__(
        self,
        imu: np.ndarray,
        seed: int = 0,
        biases: int = FEATURES,
        pool: Pool | None = None,
    ) -> None:
        windows, channels, samples = imu.shape
        if samples < KERNEL_LENGTH:
            raise ValueError(
                f"MiniRocket takes windows of at least {KERNEL_LENGTH} samples, and these have "
                f"{samples}; write longer windows, or leave the arm out"
            )
        self._pool = pool or shares_above
        generator = np.random.default_rng(seed)
        kernels = _kernels()
        dilations, counts = _dilations(samples, biases // len(kernels))
        position = 0
        self._convolutions: list[_Convolutions] = []
        for dilation, count in zip(dilations, counts, strict=True):
            used = choose_channels(len(kernels), channels, generator)
            weight = torch.from_numpy(used[:, :, None] * kernels[:, None, :])
            number = position + np.arange(1, len(kernels) * count + 1)
            position += len(number)
            quantiles = (number * _GOLDEN_RATIO % 1).reshape(len(kernels), count)
            examples = torch.from_numpy(imu[generator.integers(windows, size=len(kernels))])
            found = [
                torch.quantile(
                    _convolve(example[None], weight[k : k + 1], dilation)[0, 0],
                    torch.from_numpy(quantiles[k]).float(),
                )
                for k, example in enumerate(examples)
            ]
            self._convolutions.append(_Convolutions(dilation, weight, torch.stack(found)))

    def features(self, imu: np.ndarray) -> np.ndarray:
        """Features ``(n, D)`` float32 of windows ``(n, C, T)``; by default 9,996 from 0 to 1."""
        with torch.inference_mode():
            parts = [self._transform(part) for part in torch.from_numpy(imu).split(BATCH_WINDOWS)]
        return torch.cat(parts).numpy()

    def _transform(self, imu: torch.Tensor) -> torch.Tensor:
        parts = []
        for number, (dilation, weight, biases) in enumerate(self._convolutions):
            output = _convolve(imu, weight, dilation)  # (B, 84, T)
            # Kernels take turns: with padding, and without the samples that padding reaches.
            margin = dilation * (KERNEL_LENGTH // 2)
            padded, other = slice(number % 2, None, 2), slice(1 - number % 2, None, 2)
            whole = self._pool(output[:, padded], biases[padded])
            inner = self._pool(output[:, other, margin:-margin], biases[other])
            both = whole.new_empty(len(imu), len(biases), whole.shape[2])
            both[:, padded], both[:, other] = whole, inner
            parts.append(both.flatten(1))
        return torch.cat(parts, dim=1)


def minirocket_features(fitted: np.ndarray, imu: np.ndarray) -> np.ndarray:
    """Features ``(n, 9996)`` of windows ``(n, C, T)`` by a transform that others ``fitted``."""
    return MiniRocket(fitted).features(imu)


def _kernels() -> np.ndarray:
    """The weights ``(84, 9)`` float32."""
    heavy = list(combinations(range(KERNEL_LENGTH), HEAVY_WEIGHTS))
    weights = np.full((len(heavy), KERNEL_LENGTH), -1.0, dtype=np.float32)
    for row, places in zip(weights, heavy, strict=True):
        row[list(places)] = 2.0
    return weights


def _dilations(samples: int, per_kernel: int) -> tuple[list[int], list[int]]:
    """Dilations up to the window's length, and how many features a kernel has at each."""
    largest = np.log2((samples - 1) / (KERNEL_LENGTH - 1))
    exponents = np.linspace(0, largest, min(per_kernel, MOST_DILATIONS))
    dilations, occurrences = np.unique((2**exponents).astype(np.int64), return_counts=True)
    counts = occurrences * per_kernel // occurrences.sum()
    counts[: per_kernel - counts.sum()] += 1  # what rounding left over
    return dilations.tolist(), counts.tolist()


def choose_channels(kernels: int, channels: int, generator: np.random.Generator) -> np.ndarray:
    """Channels that each kernel sums over, of any number: ``(kernels, C)`` float32 of 0 and 1."""
    most = min(channels, KERNEL_LENGTH)
    numbers = (2 ** generator.uniform(0, np.log2(most + 1), kernels)).astype(np.int64)
    used = np.zeros((kernels, channels), dtype=np.float32)
    for row, number in zip(used, numbers.tolist(), strict=True):
        row[generator.choice(channels, number, replace=False)] = 1.0
    return used


def _convolve(imu: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    """``(B, C, T)`` by weights ``(K, C, 9)`` -> ``(B, K, T)``, zeros beyond the ends."""
    padding = dilation * (KERNEL_LENGTH // 2)
    return functional.conv1d(imu, weight, padding=padding, dilation=dilation)


def shares_above(output: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
    """Share of samples above each bias: ``(B, K, T)`` and ``(K, F)`` -> ``(B, K, F)``."""
    return torch.stack(
        [(output > bias[None, :, None]).float().mean(dim=2) for bias in biases.unbind(1)], dim=2
    )
