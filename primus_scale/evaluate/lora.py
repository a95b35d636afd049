"""Low-rank adapters in an encoder's linear layers, so that few of its weights are trained.

A linear layer with weight W gets a trained term beside it: W x + (alpha / r) B A x, with A
``(r, inputs)`` random and B ``(outputs, r)`` zero at first. Source: Hu et al., "LoRA", ICLR 2022,
arXiv 2106.09685, section 4.1. The layers are those of the library ``peft``.
"""

from __future__ import annotations

import copy
import importlib

import torch
from torch import nn

RANK, ALPHA = 8, 16


def check_adaptable(encoder: nn.Module, imu: torch.Tensor) -> None:
    """Raise ValueError where the features of ``encoder`` depend on no linear layer."""
    if not adaptable_layers(encoder, imu):
        raise ValueError(
            "arm lora adapts linear layers, and the features of this encoder depend on none; use "
            "pretrained_finetuned, or leave the arm out of few_shot.arms"
        )


def adaptable_layers(encoder: nn.Module, imu: torch.Tensor) -> list[str]:
    """Names of the linear layers that the features of windows ``(B, C, T)`` depend on.

    Heads are none of them, since features do not pass through them. Leaves the encoder in inference
    mode.
    """
    encoder.eval()
    layers = {
        name: layer for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)
    }
    if not layers:
        return []
    weights = [layer.weight for layer in layers.values()]
    needed = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        features = encoder(imu).features
        gradients = (
            torch.autograd.grad(features.sum(), weights, allow_unused=True)
            if features.requires_grad
            else [None] * len(weights)
        )
    for weight, before in zip(weights, needed, strict=True):
        weight.requires_grad_(before)
    return [name for name, gradient in zip(layers, gradients, strict=True) if gradient is not None]


def adapted_copy(encoder: nn.Module, imu: torch.Tensor, seed: int) -> nn.Module:
    """A copy of ``encoder`` with adapters, which alone are trained; it computes the same at first.

    imu ``(B, C, T)``: any windows. seed: of the adapters.
    """
    peft = importlib.import_module("peft")
    layers = adaptable_layers(encoder, imu)
    made = copy.deepcopy(encoder).requires_grad_(False)
    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: nn.Module = peft.inject_adapter_in_model(settings, made)
    return adapted
