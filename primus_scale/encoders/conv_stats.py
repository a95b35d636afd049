"""A small convolutional encoder that pools statistics over time.

Four convolutions; the mean and the logarithm of the deviation over time, at the input and after
every convolution; two linear layers. Statistics pooling is from the x-vector (Snyder et al., ICASSP
2018). Unlike a last state or a maximum it keeps the inclination of a sensor (the mean) and the
strength of a motion (the deviation), on which hand-crafted features rest.

No layer takes statistics over the batch, so a window's features do not depend on the other windows
or on the number of ranks. Parameters for six channels with gravity, without heads:

    size  widths              hidden  features  parameters
    XS    16, 24, 32, 48      192     128           91,904
    S     32, 48, 64, 96      512     256          449,616
    B     96, 144, 192, 288   1536    512        3,538,832
    L     256, 384, 512, 768  5120    1024      28,522,800
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from primus_scale.encoders.base import Backbone, Standardise

SMALLEST_VARIANCE = 1e-4  # of standardised samples; keeps the logarithm finite
AXES = 3  # of a sensor
NORM_GROUPS = 8  # of channels that are normalised together, over the window


class Size(NamedTuple):
    """Channels of the convolutions, width of the hidden layer and of the features."""

    widths: tuple[int, int, int, int]
    hidden: int
    features: int


class Convolution(NamedTuple):
    """Kernel, stride and dilation of a convolution, in samples."""

    kernel: int
    stride: int
    dilation: int


SIZES = {
    "XS": Size((16, 24, 32, 48), 192, 128),
    "S": Size((32, 48, 64, 96), 512, 256),
    "B": Size((96, 144, 192, 288), 1536, 512),
    "L": Size((256, 384, 512, 768), 5120, 1024),
}
CONVOLUTIONS = (
    Convolution(9, 2, 1),
    Convolution(5, 2, 1),
    Convolution(5, 2, 1),
    Convolution(5, 1, 2),
)


class ConvStats(Backbone):
    """Backbone: imu ``(B, C, T)`` -> features ``(B, D)``; see the module.

    gravity: add the channels of ``GravityFrame``. Raises ValueError where channels are no triplets
    then.
    """

    def __init__(
        self, size: str, mean: Sequence[float], std: Sequence[float], *, gravity: bool
    ) -> None:
        super().__init__()
        widths, hidden, self.width = SIZES[size]
        self.standardise = GravityFrame(mean, std) if gravity else Standardise(mean, std)
        channels = len(mean) * (2 if gravity else 1)
        inputs = (channels, *widths[:-1])
        self.blocks = nn.ModuleList(
            _block(*each) for each in zip(inputs, widths, CONVOLUTIONS, strict=True)
        )
        pooled = 2 * (channels + sum(widths))
        self.pooled_norm = nn.LayerNorm(pooled)
        self.head = nn.Sequential(
            nn.Linear(pooled, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, self.width),
        )

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Turn imu ``(B, C, T)`` into features ``(B, D)``."""
        signal = self.standardise(imu)
        pooled = [pool_statistics(signal)]
        dtype = self.pooled_norm.weight.dtype
        signal = signal.to(dtype)
        for block in self.blocks:
            signal = block(signal)
            pooled.append(pool_statistics(signal))
        joined = torch.cat(pooled, dim=1).to(dtype)
        features: torch.Tensor = self.head(self.pooled_norm(joined))
        return features


class GravityFrame(Standardise):
    """Standardised channels, and as many that do not depend on how the device is turned.

    The first triplet of channels is the accelerometer's. Its mean over the window points upwards
    (it is gravity, while nothing accelerates for seconds). Each triplet gives its magnitude, its
    part along that direction and the magnitude of the part across it, relative to the root mean
    square magnitude and deviation over the training data. Input and output ``(B, C, T)`` and
    ``(B, 2 C, T)`` float32. ValueError where channels are no triplets.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) % AXES:
            raise ValueError(
                f"encoder.gravity takes triplets of channels, the shards have {len(mean)} "
                "channels; set encoder.gravity=false"
            )
        super().__init__(mean, std)

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` -> ``(B, 2 C, T)``."""
        imu = imu.float()
        sensors = imu.unflatten(1, (-1, AXES))  # (B, C / 3, 3, T)
        up = F.normalize(sensors[:, :1].mean(dim=3, keepdim=True), dim=2)
        along = (sensors * up).sum(dim=2)
        across = (sensors - along[:, :, None] * up).norm(dim=2)
        magnitude = sensors.norm(dim=2)
        square = (self.mean.float() ** 2 + self.std.float() ** 2).unflatten(0, (-1, AXES))
        usual = square.sum(dim=1).sqrt()  # (C / 3, 1)
        deviation = (self.std.float() ** 2).unflatten(0, (-1, AXES)).mean(dim=1).sqrt()
        gravity = torch.zeros_like(usual)
        gravity[0] = usual[0]
        frame = [(magnitude - usual), (along - gravity), across]
        return torch.cat([super().forward(imu), *(part / deviation for part in frame)], dim=1)


def pool_statistics(signal: torch.Tensor) -> torch.Tensor:
    """Mean and logarithm of the deviation over time: ``(B, C, T)`` -> ``(B, 2 C)`` float32."""
    signal = signal.float()
    variance = signal.var(dim=2, unbiased=False)
    return torch.cat([signal.mean(dim=2), 0.5 * (variance + SMALLEST_VARIANCE).log()], dim=1)


def _block(inputs: int, outputs: int, convolution: Convolution) -> nn.Sequential:
    kernel, stride, dilation = convolution
    return nn.Sequential(
        nn.Conv1d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            bias=False,
        ),
        nn.GroupNorm(NORM_GROUPS, outputs),
        nn.GELU(),
    )
