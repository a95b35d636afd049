"""The encoder that scales: a pre-norm transformer over patches of the window.

Sizes are those of ViT (arXiv 2010.11929, table 1; S from arXiv 2012.12877), parameters for
6 x 250 samples in patches of 10, ss_dim 512 and one shared head of 512:

    size  width  layers  heads   parameters
    S     384    12      6       21,721,600
    B     768    12      12      85,909,504
    L     1024   24      16     303,449,088
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from primus_scale.encoders.base import Backbone
from primus_scale.encoders.input import Standardise
from primus_scale.encoders.pooling import StatisticsPooling

MLP_RATIO = 4
INIT_STD = 0.02


class Size(NamedTuple):
    """Width of the tokens, number of layers, attention heads a layer."""

    width: int
    layers: int
    heads: int


SIZES = {"S": Size(384, 12, 6), "B": Size(768, 12, 12), "L": Size(1024, 24, 16)}


class NormalLinear(nn.Linear):
    """Linear map whose weights start normal with deviation ``std`` and whose bias starts at zero.

    The constructor sets them, since DeepSpeed's ``zero.Init`` partitions a module's weights right
    after its constructor; later values would be lost.
    """

    def __init__(self, inputs: int, outputs: int, std: float = INIT_STD) -> None:
        self.std = std
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        """Called by ``nn.Linear``'s constructor."""
        nn.init.normal_(self.weight, std=self.std)
        nn.init.zeros_(self.bias)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of a window: ``(B, L, D)`` -> ``(B, L, D)``."""

    def __init__(self, width: int, heads: int, out_std: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = NormalLinear(width, 3 * width)
        self.out = NormalLinear(width, width, out_std)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(B, L, D)`` -> ``(B, L, D)``."""
        batch, length, width = tokens.shape
        heads = self.qkv(tokens).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection.

    The initial weights of the two outputs are smaller the more layers there are, so that the sum
    over layers does not grow with depth (as in GPT-2).
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        added_std = INIT_STD / (2 * layers) ** 0.5
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, added_std)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            NormalLinear(width, MLP_RATIO * width),
            nn.GELU(),
            NormalLinear(MLP_RATIO * width, width, added_std),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(B, L, D)`` -> ``(B, L, D)``."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class PatchEmbedding(nn.Module):
    """One token for each ``patch`` samples of all channels, with a learned position embedding.

    imu ``(B, C, T)`` -> tokens ``(B, T / patch, D)``.
    """

    def __init__(self, channels: int, samples: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.project = NormalLinear(channels * patch, width)
        self.position = nn.Parameter(torch.randn(samples // patch, width) * INIT_STD)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` -> ``(B, T / patch, D)``."""
        batch, channels, samples = signal.shape
        patches = signal.view(batch, channels, samples // self.patch, self.patch).transpose(1, 2)
        tokens = self.project(patches.flatten(2).to(self.project.weight.dtype))
        return tokens + self.position


class Transformer(Backbone):
    """Backbone: imu ``(B, C, T)`` -> features ``(B, D)``, the mean of the last layer's tokens.

    stats: the features come from statistics of the tokens and of the channels of ``standardise``.
    keep_statistics: ``encoder.features=all``.
    No dropout, so that views differ by augmentation alone. Raises ValueError where ``samples``
    does not divide by ``patch``.
    """

    def __init__(
        self,
        size: str,
        patch: int,
        samples: int,
        standardise: Standardise,
        *,
        stats: bool,
        keep_statistics: bool = False,
    ) -> None:
        super().__init__()
        if samples % patch:
            raise ValueError(
                f"encoder.patch={patch} does not divide windows of {samples} samples; "
                f"choose a divisor of {samples}"
            )
        if size not in SIZES:
            raise ValueError(
                f"encoder.size={size} is none of the transformer's ({', '.join(SIZES)}); choose "
                "one of them, or set encoder.name=conv_stats"
            )
        self.width, layers, heads = SIZES[size]
        self.standardise = standardise
        self.embed = PatchEmbedding(standardise.channels, samples, patch, self.width)
        self.layers = nn.ModuleList(Layer(self.width, heads, layers) for _ in range(layers))
        self.norm = nn.LayerNorm(self.width)
        self.pooling = (
            StatisticsPooling(standardise.channels, self.width, self.width, keep=keep_statistics)
            if stats
            else None
        )

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Turn imu ``(B, C, T)`` into features ``(B, D)``."""
        signal = self.standardise(imu)
        tokens = self.embed(signal)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        if self.pooling is None:
            return tokens.mean(dim=1)
        return self.pooling(signal, tokens.transpose(1, 2))
