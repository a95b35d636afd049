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
    """Embeddings of windows, and temperatures and biases by family of terms, 0-d float32.

    There are biases with ``objective.loss`` "sigmoid" only.

    A named tuple, so that DeepSpeed's ZeRO-3 hooks find the tensors.
    """

    embeddings: Embeddings
    temperatures: dict[str, torch.Tensor]
    biases: dict[str, torch.Tensor]


class PrimusModel(nn.Module):
    """The encoder, and the temperatures and biases of the loss: all parameters that are trained.

    biases: their values at the start, by family of terms; none without the sigmoid loss.
    """

    def __init__(
        self,
        encoder: nn.Module,
        temperatures: Mapping[str, TemperatureConfig],
        biases: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperatures = Temperatures(temperatures)
        self.biases = nn.ParameterDict(
            {family: nn.Parameter(torch.tensor(value)) for family, value in (biases or {}).items()}
        )

    def forward(self, imu: torch.Tensor) -> ModelOutput:
        """Embed imu ``(B, C, T)``. In a step the rows are both views of a batch, view 0 first."""
        biases = {family: value.float() for family, value in self.biases.items()}
        return ModelOutput(self.encoder(imu), self.temperatures(), biases)


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
        self._clamps = any(config.mode == "log" for config in configs.values())
        low, high = zip(*map(_bounds, configs.values()), strict=True)
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.register_buffer("high", torch.tensor(high), persistent=False)

    def forward(self) -> dict[str, torch.Tensor]:
        """The temperatures by family, 0-d float32."""
        values = self.value.float()
        if self._clamps:
            values = _Clamp.apply(values, self.low, self.high)
        pairs = zip(self.configs.items(), values.unbind(), strict=True)
        return {family: _temperature(value, config.mode) for (family, config), value in pairs}


def _stored(config: TemperatureConfig) -> float:
    return math.log(config.initial) if config.mode == "log" else config.initial


def _bounds(config: TemperatureConfig) -> tuple[float, float]:
    """The bounds of a stored value; infinite where there are none."""
    if config.mode == "log":
        return math.log(config.minimum), math.log(config.maximum)
    return -math.inf, math.inf


def _temperature(value: torch.Tensor, mode: str) -> torch.Tensor:
    """The temperature of a stored value within its bounds, both 0-d."""
    if mode == "log":
        return value.exp()
    return value.detach() if mode == "fixed" else value


class _Clamp(torch.autograd.Function):
    """A clamp that keeps the gradient of values out of bounds, if it points back inside.

    The gradient of an ordinary clamp is 0 out of bounds. An optimiser step may end there, and the
    temperature would never change again. The direction is that of the gradient summed over ranks,
    so the result does not depend on the number of ranks. Values and bounds ``(F,)``.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, low: torch.Tensor, high: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(values < low, values > high)
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        below, above = ctx.saved_tensors
        total = sum_over_ranks(grad)
        points_outside = (below & (total > 0)) | (above & (total < 0))
        return grad.masked_fill(points_outside, 0.0), None, None
