"""Hand-crafted features of a window: the baseline of pretrained encoders, and the signal teacher.

They are the usual features of activity recognition (mean, deviation, quantiles, energy, spectrum
and correlations, as in the UCI HAR/HAPT feature lists), for any number of channels.
"""

from __future__ import annotations

import itertools

import numpy as np

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
BAND_EDGES_HZ = (0.3, 0.8, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 20.0)
SMALLEST_POWER = 1e-8  # keeps the logarithm of a silent band finite


def hand_features(imu: np.ndarray, rate_hz: float) -> np.ndarray:
    """Features ``(n, D)`` float64 of windows ``(n, C, T)``: those of all groups, side by side."""
    return np.concatenate([*feature_groups(imu, rate_hz).values()], axis=1)


def feature_groups(imu: np.ndarray, rate_hz: float) -> dict[str, np.ndarray]:
    """Features of windows ``(n, C, T)`` by kind, each ``(n, d)`` float64.

    The magnitude of each sensor (a triplet of channels) is added as a channel: it does not depend
    on the orientation of the device.
    """
    signals = _with_magnitudes(imu.astype(np.float64))
    mean = signals.mean(axis=2)
    centred = signals - mean[:, :, None]
    deviation = centred.std(axis=2)
    return {
        "mean": mean,
        "deviation": deviation,
        "quantiles": np.concatenate([*np.quantile(signals, QUANTILES, axis=2)], axis=1),
        "log_energy": np.log((signals**2).mean(axis=2) + SMALLEST_POWER),
        **_spectral_features(centred, rate_hz),
        "correlations": _correlations(centred, deviation),
    }


def _with_magnitudes(imu: np.ndarray) -> np.ndarray:
    windows, channels, samples = imu.shape
    if channels % 3:
        return imu  # no triplets, no magnitude
    triplets = imu.reshape(windows, channels // 3, 3, samples)
    return np.concatenate([imu, np.linalg.norm(triplets, axis=2)], axis=1)


def _spectral_features(centred: np.ndarray, rate_hz: float) -> dict[str, np.ndarray]:
    """Log power in bands, main frequency (Hz) and spectral entropy of each channel."""
    samples = centred.shape[2]
    power = np.abs(np.fft.rfft(centred * np.hanning(samples), axis=2)) ** 2 / samples
    frequency_hz = np.fft.rfftfreq(samples, 1 / rate_hz)
    bands = [
        np.log(power[:, :, (frequency_hz >= low) & (frequency_hz < high)].sum(2) + SMALLEST_POWER)
        for low, high in itertools.pairwise(BAND_EDGES_HZ)
        if low < rate_hz / 2
    ]
    share = power / (power.sum(axis=2, keepdims=True) + SMALLEST_POWER)
    entropy = -(share * np.log(share + SMALLEST_POWER)).sum(axis=2)
    main_hz = frequency_hz[power.argmax(axis=2)]
    return {"log_bands": np.concatenate(bands, axis=1), "main_hz": main_hz, "entropy": entropy}


def _correlations(centred: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Correlation of each pair of channels; 0 where one of the two is constant."""
    samples = centred.shape[2]
    unit = centred / np.where(deviation > 0, deviation, np.inf)[:, :, None]
    correlation = unit @ unit.transpose(0, 2, 1) / samples
    first, second = np.triu_indices(centred.shape[1], k=1)
    return correlation[:, first, second]
