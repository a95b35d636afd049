"""Hand-crafted features beside the learned ones, computed by the encoder from the same window.

Few labels suit learned features, and many suit hand-crafted ones; a linear probe on both is at
least as good as on either (docs/results.md). The formulas are those of
``primus_scale.signal.features`` in torch, so that an exported encoder brings them along.

Shapes: B windows, C channels, T samples, S signals (channels and magnitudes of sensors).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from primus_scale.encoders.base import Backbone
from primus_scale.signal.features import BAND_EDGES_HZ, QUANTILES, SMALLEST_POWER

AXES = 3  # of a sensor


class HandcraftedBeside(Backbone):
    """A backbone with hand-crafted features before its own: imu ``(B, C, T)`` -> ``(B, Dh + D)``.

    No gradient goes through the hand-crafted ones. rate_hz: of the windows, of ``samples`` each.
    """

    def __init__(self, learned: Backbone, samples: int, rate_hz: float) -> None:
        super().__init__()
        self.learned = learned
        self.width = learned.width
        self.handcrafted = HandFeatures(samples, rate_hz)

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Turn imu ``(B, C, T)`` into features."""
        learned: torch.Tensor = self.learned(imu)
        with torch.no_grad(), torch.autocast(imu.device.type, enabled=False):
            crafted = self.handcrafted(imu)
        return torch.cat([crafted.to(learned.dtype), learned], dim=1)


class HandFeatures(nn.Module):
    """``signal.features.hand_features`` of windows: imu ``(B, C, T)`` -> ``(B, Dh)`` float32.

    It computes in float64: logarithms of bands that are nearly silent, beside gravity, would be
    rounding noise in float32, another one on every device.
    """

    def __init__(self, samples: int, rate_hz: float) -> None:
        super().__init__()
        self.samples, self.rate_hz = samples, rate_hz
        self.bands = [
            tuple(_first_bin(edge, samples, rate_hz) for edge in edges)
            for edges in itertools.pairwise(BAND_EDGES_HZ)
            if edges[0] < rate_hz / 2
        ]

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Hand-crafted features, in the order of ``hand_features``."""
        signals = _with_magnitudes(imu.double())
        mean = signals.mean(dim=2)
        centred = signals - mean[:, :, None]
        deviation = centred.square().mean(dim=2).sqrt()
        return torch.cat(
            [
                mean,
                deviation,
                self._quantiles(signals),
                (signals.square().mean(dim=2) + SMALLEST_POWER).log(),
                self._spectral(centred),
                self._correlations(centred, deviation),
            ],
            dim=1,
        ).float()

    def _quantiles(self, signals: torch.Tensor) -> torch.Tensor:
        """``(B, Q S)``, each between the two samples next to it in order of size."""
        ordered = _sorted(signals)
        found = []
        for quantile in QUANTILES:
            place = quantile * (self.samples - 1)
            low = min(int(place), self.samples - 2)
            found.append(torch.lerp(ordered[:, :, low], ordered[:, :, low + 1], place - low))
        return torch.cat(found, dim=1)

    def _spectral(self, centred: torch.Tensor) -> torch.Tensor:
        """Log power in bands, main frequency (Hz) and spectral entropy of each signal."""
        window = torch.hann_window(
            self.samples, periodic=False, dtype=centred.dtype, device=centred.device
        )
        real, imaginary = torch.view_as_real(torch.fft.rfft(centred * window, dim=2)).unbind(3)
        power = (real.square() + imaginary.square()) / self.samples
        bands = [power[:, :, low:high].sum(dim=2) for low, high in self.bands]
        log_bands = (torch.cat(bands, dim=1) + SMALLEST_POWER).log()
        share = power / (power.sum(dim=2, keepdim=True) + SMALLEST_POWER)
        entropy = -(share * (share + SMALLEST_POWER).log()).sum(dim=2)
        main_hz = power.argmax(dim=2) * (self.rate_hz / self.samples)
        return torch.cat([log_bands, main_hz, entropy], dim=1)

    def _correlations(self, centred: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        """Correlation of each pair of signals; 0 where one of the two is constant."""
        inverse = torch.where(deviation > 0, 1 / deviation, 0.0)
        unit = centred * inverse[:, :, None]
        correlation = unit @ unit.transpose(1, 2) / self.samples
        pairs = itertools.combinations(range(centred.shape[1]), 2)
        columns = [correlation[:, first, second] for first, second in pairs]
        return torch.stack(columns, dim=1) if columns else correlation[:, 0, :0]  # one channel


def _with_magnitudes(imu: torch.Tensor) -> torch.Tensor:
    windows, channels, samples = imu.shape
    if channels % AXES:
        return imu
    triplets = imu.reshape(windows, channels // AXES, AXES, samples)
    return torch.cat([imu, triplets.square().sum(dim=2).sqrt()], dim=1)


def _sorted(signals: torch.Tensor) -> torch.Tensor:
    """Samples ``(B, S, T)`` in order of size.

    On a CPU numpy sorts 20 times as fast as torch. Graphs for export cannot hold it.
    """
    if signals.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return signals.sort(dim=2).values
    return torch.from_numpy(np.sort(signals.numpy(), axis=2))


def _first_bin(edge_hz: float, samples: int, rate_hz: float) -> int:
    """The first bin of the spectrum at or above a frequency."""
    bins = samples // 2 + 1
    return next((n for n in range(bins) if n * rate_hz / samples >= edge_hz), bins)
