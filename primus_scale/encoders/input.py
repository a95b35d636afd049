"""The input of encoders: channels relative to the training data, and to gravity.

Shapes: B windows, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

SMALLEST_LENGTH = 1e-6  # in the channels' units
AXES = 3  # of a sensor


class Standardise(nn.Module):
    """Take each channel relative to the training data: ``(imu - mean) / std``.

    Unlike a norm over the window it keeps gravity and the scale of motion. ``mean`` and ``std``
    are ``(C,)`` in the channels' units and are saved with the weights. ``channels``: of the output.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.channels = len(mean)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None])

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` -> the same shape, float32."""
        return (imu.float() - self.mean.float()) / self.std.float()


class GravityFrame(Standardise):
    """Standardised channels, and as many that do not depend on how the device is turned.

    The first triplet of channels is the accelerometer's. Its mean over the window points upwards
    (it is gravity, while nothing accelerates for seconds). Each triplet gives three channels: its
    magnitude, its part along that direction, and the magnitude of the part across it. They are
    scaled by the root mean square magnitude and deviation over the training data. Input and output
    ``(B, C, T)`` and ``(B, 2 C, T)`` float32. ValueError where channels are no triplets.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) % AXES:
            raise ValueError(
                f"encoder.gravity takes triplets of channels, the shards have {len(mean)} "
                "channels; set encoder.gravity=false"
            )
        super().__init__(mean, std)
        self.channels = 2 * len(mean)

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` -> ``(B, 2 C, T)``."""
        imu = imu.float()
        sensors = imu.unflatten(1, (-1, AXES))  # (B, C / 3, 3, T)
        up = F.normalize(sensors[:, :1].mean(dim=3, keepdim=True), dim=2)
        along = (sensors * up).sum(dim=2)
        across = _length(sensors - along[:, :, None] * up)
        magnitude = _length(sensors)
        square = (self.mean.float() ** 2 + self.std.float() ** 2).unflatten(0, (-1, AXES))
        usual = square.sum(dim=1).sqrt()  # (C / 3, 1)
        deviation = (self.std.float() ** 2).unflatten(0, (-1, AXES)).mean(dim=1).sqrt()
        gravity = torch.zeros_like(usual)
        gravity[0] = usual[0]
        frame = [(magnitude - usual), (along - gravity), across]
        return torch.cat([super().forward(imu), *(part / deviation for part in frame)], dim=1)


def _length(vectors: torch.Tensor) -> torch.Tensor:
    """Lengths ``(B, C / 3, T)`` of vectors ``(B, C / 3, 3, T)``.

    ``torch.norm`` takes 30 times as long over so few values. Below SMALLEST_LENGTH the length is
    that, and its gradient 0: the root has none at 0.
    """
    return vectors.square().sum(dim=2).clamp_min(SMALLEST_LENGTH**2).sqrt()
