"""The trained model: the encoder, and the temperatures of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from primus_scale.config import TemperatureConfig
from primus_scale.distributed.collectives import sum_over_ranks
from primus_scale.encoders.base import Embeddings


class ModelOutput(NamedTuple):
    """Embeddings of windows, and the temperatures by family, 0-d float32.

    A named tuple, so that DeepSpeed's ZeRO-3 hooks find the tensors.
    """

    embeddings: Embeddings
    temperatures: dict[str, torch.Tensor]


class PrimusModel(nn.Module):
    """The encoder and the temperatures of the loss: all parameters that are trained."""

    def __init__(self, encoder: nn.Module, temperatures: Mapping[str, TemperatureConfig]) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperatures = Temperatures(temperatures)

    def forward(self, imu: torch.Tensor) -> ModelOutput:
        """Embed imu ``(B, C, T)``. In a step the rows are both views of a batch, view 0 first."""
        return ModelOutput(self.encoder(imu), self.temperatures())


class Temperatures(nn.Module):
    """A temperature for each family of terms; see ``TemperatureConfig`` for the modes.

    ``value`` ``(F,)`` is the parameter, in the order of ``configs``: log t in mode ``log``, the
    temperature t itself in the other modes. The optimiser applies no weight decay to it.
    """

    def __init__(self, configs: Mapping[str, TemperatureConfig]) -> None:
        super().__init__()
        self.configs = dict(configs)
        value = torch.tensor([_stored(config) for config in configs.values()])
        learned = any(config.mode != "fixed" for config in configs.values())
        self.value = nn.Parameter(value, requires_grad=learned)

    def forward(self) -> dict[str, torch.Tensor]:
        """The temperatures by family, 0-d float32."""
        pairs = zip(self.configs.items(), self.value.float().unbind(), strict=True)
        return {family: _temperature(value, config) for (family, config), value in pairs}


def _stored(config: TemperatureConfig) -> float:
    return math.log(config.initial) if config.mode == "log" else config.initial


def _temperature(value: torch.Tensor, config: TemperatureConfig) -> torch.Tensor:
    """The temperature of a stored value, both 0-d."""
    if config.mode == "log":
        low, high = math.log(config.minimum), math.log(config.maximum)
        clamped: torch.Tensor = _Clamp.apply(value, low, high)
        return clamped.exp()
    return value.detach() if config.mode == "fixed" else value


class _Clamp(torch.autograd.Function):
    """A clamp that keeps the gradient of a value out of bounds, if it points back inside.

    The gradient of an ordinary clamp is 0 out of bounds. An optimiser step may end there, and the
    temperature would never change again. The direction is that of the gradient summed over ranks,
    so the result does not depend on the number of ranks.
    """

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.save_for_backward(value < low, value > high)
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        below, above = ctx.saved_tensors
        total = sum_over_ranks(grad)
        points_outside = (below & (total > 0)) | (above & (total < 0))
        return grad.masked_fill(points_outside, 0.0), None, None
