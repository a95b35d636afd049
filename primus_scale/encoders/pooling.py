"""Statistics over time: what ``conv_stats`` pools, and others with ``encoder.pooling=stats``.

The mean keeps how a sensor is inclined, the deviation how strong a motion is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SMALLEST_VARIANCE = 1e-4  # of standardised samples; keeps the logarithm finite


class StatisticsPooling(nn.Module):
    """Features of width ``width`` from statistics of an encoder's input and of its last sequence.

    Both, and a recurrent encoder's last ``state``, are joined, normalised over the joined values of
    each window, and mapped by a linear layer.

    channels, sequence: channels of the input and of the sequence. state: width of the state, 0
    where there is none. keep: what was joined stands before the features.
    """

    def __init__(
        self, channels: int, sequence: int, width: int, *, state: int = 0, keep: bool = False
    ) -> None:
        super().__init__()
        self.keep = keep
        joined = 2 * (channels + sequence) + state
        self.norm = nn.LayerNorm(joined)
        self.project = nn.Linear(joined, width)

    def forward(
        self, signal: torch.Tensor, sequence: torch.Tensor, state: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features ``(B, width)``, or more where they are kept.

        signal ``(B, C, T)``, sequence ``(B, N, L)``, state ``(B, S)``.
        """
        parts = [pool_statistics(signal), pool_statistics(sequence)]
        if state is not None:
            parts.append(state.float())
        joined = torch.cat(parts, dim=1).to(self.norm.weight.dtype)
        features: torch.Tensor = self.project(self.norm(joined))
        return torch.cat([joined, features], dim=1) if self.keep else features


def pool_statistics(signal: torch.Tensor) -> torch.Tensor:
    """Mean and logarithm of the deviation over time: ``(B, C, T)`` -> ``(B, 2 C)`` float32."""
    if torch.is_grad_enabled() and signal.requires_grad:
        mean, variance = _Moments.apply(signal)
    else:
        mean, centred = _centred(signal)
        variance = centred.square().mean(dim=2)
    return torch.cat([mean, 0.5 * (variance + SMALLEST_VARIANCE).log()], dim=1)


def _centred(signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over time ``(B, C)``, and the rest ``(B, C, T)``; float32."""
    signal = signal.float()
    mean = signal.mean(dim=2)
    return mean, signal - mean[:, :, None]


class _Moments(torch.autograd.Function):
    """Mean m and variance v over time, ``(B, C)`` float32, of a signal x ``(B, C, T)``.

    On a CPU they take a third of the time of torch's, whose ``var`` is slow. The gradients are

        dm/dx = 1 / T,    dv/dx = 2 * (x - m) / T.
    """

    @staticmethod
    def forward(ctx: Any, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, centred = _centred(signal)
        ctx.save_for_backward(centred)
        ctx.dtype = signal.dtype
        return mean, centred.square().mean(dim=2)

    @staticmethod
    def backward(ctx: Any, of_mean: torch.Tensor, of_variance: torch.Tensor) -> torch.Tensor:
        (centred,) = ctx.saved_tensors
        share = 1 / centred.shape[2]
        slope = (2 * share * of_variance)[:, :, None]
        return torch.addcmul((share * of_mean)[:, :, None], centred, slope).to(ctx.dtype)
