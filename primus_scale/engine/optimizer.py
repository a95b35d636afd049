"""The optimiser and the schedule of its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from primus_scale.config import OptimizerConfig


def learning_rate(step: int, config: OptimizerConfig, steps: int) -> float:
    """Learning rate of the update after ``step`` steps of a run of ``steps`` steps.

    With W warm-up steps and the maximum lr:

        step < W:   lr * (step + 1) / W
        constant:   lr
        cosine:     lr / 2 * (1 + cos(pi * (step - W) / (steps - W)))

    (arXiv 1608.03983, without restarts). It is a pure function of the step, so a resumed run needs
    no state for it.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Torch's fused Adam or AdamW, without weight decay for biases, norms and temperatures."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, fused=True)
