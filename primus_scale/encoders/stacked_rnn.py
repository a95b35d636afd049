"""The paper's encoder, three dilated convolutions and a GRU, and a variant that scans time.

``stacked_rnn`` is the encoder of PRIMUS (arXiv 2411.15127), exactly as its published weights need
it. Two of its properties look like mistakes, but the weights depend on them: the GRU scans the 32
channels of the pooled tensor instead of its 32 time steps, and the norm of the input removes the
magnitude of gravity. ``stacked_rnn_time`` has neither.

With ``encoder.pooling=stats`` the GRU's last state is joined by statistics over time: of the input,
and of the last sequence along time, which is the GRU's output in ``stacked_rnn_time`` and its input
in ``stacked_rnn``. So the latter knows the magnitude of gravity then.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from primus_scale.encoders.base import Backbone
from primus_scale.encoders.input import AXES, Standardise
from primus_scale.encoders.pooling import StatisticsPooling

HIDDEN_CHANNELS = 32
POOLED_STEPS = 32
FEATURES = 512
KERNELS = (10, 5, 5)
DILATION = 2
POOL = 3


class InputNorm(nn.GroupNorm):
    """Group norm of the window, computed in float32.

    Groups are two where channels can be halved (of six: accelerometer and gyroscope, as in the
    paper), else one a triplet, or one of all. In bfloat16 values near gravity, 9.8 m/s2, have a
    resolution of 0.03 m/s2 only.
    """

    def __init__(self, channels: int) -> None:
        triplets = 1 if channels % AXES else channels // AXES
        super().__init__(2 if channels % 2 == 0 else triplets, channels)

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` -> the same shape, float32."""
        return F.group_norm(
            imu.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps
        )


class StackedConvolutions(nn.Module):
    """Three dilated convolutions: ``(B, C, T)`` -> ``(B, 32, 32)`` (channels, time steps).

    At 250 samples the lengths are 250 -> 232 -> 77 -> 69 -> 23 -> 15 -> 32.
    """

    def __init__(self, channels: int, *, relu: bool) -> None:
        super().__init__()
        widths = (channels, HIDDEN_CHANNELS, HIDDEN_CHANNELS, HIDDEN_CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], kernel, dilation=DILATION, bias=False)
            for i, kernel in enumerate(KERNELS)
        )
        self.relu = relu
        self.norm = nn.GroupNorm(4, HIDDEN_CHANNELS)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` -> ``(B, 32, 32)``."""
        last = len(self.convolutions) - 1
        for i, convolution in enumerate(self.convolutions):
            signal = convolution(signal)
            if self.relu:
                signal = F.relu(signal)
            if i < last:
                signal = F.max_pool1d(signal, POOL)
        return self.norm(F.adaptive_avg_pool1d(signal, POOLED_STEPS))


class StackedRnn(Backbone):
    """The paper's backbone: imu ``(B, C, T)`` -> features ``(B, 512)``.

    statistics: the input whose statistics join the state, None for the paper's features.
    keep_statistics: ``encoder.features=all``. Raises ValueError where ``samples`` is too short for
    the convolutions.
    """

    width = FEATURES

    def __init__(
        self,
        channels: int,
        samples: int,
        statistics: Standardise | None,
        *,
        keep_statistics: bool = False,
    ) -> None:
        super().__init__()
        _check_length(samples)
        self.input_norm = InputNorm(channels)
        self.convolutions = StackedConvolutions(channels, relu=False)
        self.gru = nn.GRU(POOLED_STEPS, FEATURES)
        self.standardise = statistics
        if statistics is not None:
            self.pooling = StatisticsPooling(
                statistics.channels,
                HIDDEN_CHANNELS,
                FEATURES,
                state=FEATURES,
                keep=keep_statistics,
            )

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Turn imu ``(B, C, T)`` into features ``(B, 512)``."""
        signal = self.input_norm(imu).to(self.gru.weight_hh_l0.dtype)
        pooled = self.convolutions(signal)
        _, state = self.gru(pooled.transpose(0, 1))  # scans channels, as the published weights do
        if self.standardise is None:
            return state[0]
        return self.pooling(self.standardise(imu), pooled, state[0])


class StackedRnnTime(Backbone):
    """The variant: keeps gravity, has ReLU between blocks, and its GRU scans time.

    imu ``(B, C, T)`` -> features ``(B, 512)`` of the channels of ``standardise``. stats: pool
    statistics. keep_statistics: ``encoder.features=all``. Raises ValueError where ``samples`` is
    too short.
    """

    width = FEATURES

    def __init__(
        self,
        samples: int,
        standardise: Standardise,
        *,
        stats: bool,
        keep_statistics: bool = False,
    ) -> None:
        super().__init__()
        _check_length(samples)
        self.standardise = standardise
        self.convolutions = StackedConvolutions(standardise.channels, relu=True)
        self.gru = nn.GRU(HIDDEN_CHANNELS, FEATURES)
        self.pooling = (
            StatisticsPooling(
                standardise.channels, FEATURES, FEATURES, state=FEATURES, keep=keep_statistics
            )
            if stats
            else None
        )

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Turn imu ``(B, C, T)`` into features ``(B, 512)``."""
        signal = self.standardise(imu)
        pooled = self.convolutions(signal.to(self.gru.weight_hh_l0.dtype))
        sequence, state = self.gru(pooled.permute(2, 0, 1))
        if self.pooling is None:
            return state[0]
        return self.pooling(signal, sequence.permute(1, 2, 0), state[0])


def _check_length(samples: int) -> None:
    length = samples
    for block, kernel in enumerate(KERNELS):
        length -= DILATION * (kernel - 1)
        if block < len(KERNELS) - 1:
            length //= POOL
    if length < 1:
        raise ValueError(
            f"windows of {samples} samples are too short for encoder.name=stacked_rnn and "
            "stacked_rnn_time, which need 123; make longer windows, or set encoder.name=transformer"
        )
