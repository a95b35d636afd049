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

from typing import NamedTuple

import torch
from torch import nn

from primus_scale.encoders.base import Backbone
from primus_scale.encoders.input import Standardise
from primus_scale.encoders.pooling import pool_statistics

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
    """Backbone: imu ``(B, C, T)`` -> features ``(B, D)`` of the channels of ``standardise``.

    keep_statistics: the statistics of all layers stand before the last layer's features.
    """

    def __init__(self, size: str, standardise: Standardise, *, keep_statistics: bool) -> None:
        super().__init__()
        self.keep_statistics = keep_statistics
        widths, hidden, self.width = SIZES[size]
        self.standardise = standardise
        channels = standardise.channels
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
        return torch.cat([joined, features], dim=1) if self.keep_statistics else features


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
