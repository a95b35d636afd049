"""Dilated convolutions by loops in float64, and random walks to convolve."""

import numpy as np


def walks(count: int = 12, channels: int = 6, samples: int = 80, seed: int = 0) -> np.ndarray:
    """Windows ``(count, C, T)`` float32."""
    drawn = np.random.default_rng(seed).standard_normal((count, channels, samples))
    return drawn.astype(np.float32).cumsum(axis=2)


def naive_convolution(window: np.ndarray, weight: np.ndarray, dilation: int) -> np.ndarray:
    """``(C, T)`` by weights ``(C, 9)`` -> ``(T,)``; beyond the ends of the window lie zeros."""
    samples = window.shape[1]
    output = np.zeros(samples)
    for t in range(samples):
        for channel in np.flatnonzero(weight.any(axis=1)):
            for place in range(9):
                at = t + (place - 4) * dilation
                if 0 <= at < samples:
                    output[t] += float(weight[channel, place]) * float(window[channel, at])
    return output
