"""Classifiers on an encoder: a linear probe on frozen features, and training of the whole.

Shapes: n windows, C channels, T samples, D width of the features; see ``primus_scale.sample``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from primus_scale.augment import Augment, step_generator

INFERENCE_BATCH = 512
PROBE_ITERATIONS = 500
WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.01
GRADIENT_CLIP = 5.0


@dataclass(frozen=True)
class Probe:
    """Logistic regression on standardised features, as one linear map on the features as given.

    weight ``(classes, D)`` and bias ``(classes,)``, float64; classes that had no example have a
    bias of minus infinity.
    """

    weight: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Class ids ``(n,)`` of features ``(n, D)``."""
        return (features @ self.weight.T + self.bias).argmax(axis=1)


def fit_probe(features: np.ndarray, label: np.ndarray, classes: int, strength: float) -> Probe:
    """Fit a probe on features ``(n, D)`` with class ids ``(n,)`` of at least two classes.

    strength: the inverse of the L2 penalty (scikit-learn's ``C``).
    """
    scaler = StandardScaler()
    standardised = scaler.fit_transform(features.astype(np.float64))
    model = LogisticRegression(C=strength, max_iter=PROBE_ITERATIONS)
    with warnings.catch_warnings():
        # A weakly penalised probe may stop short of its optimum. It classifies as well by then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(standardised, label)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    whole_weight = np.zeros((classes, features.shape[1]))
    whole_bias = np.full(classes, -np.inf)
    whole_weight[model.classes_] = weight / scaler.scale_
    whole_bias[model.classes_] = bias - whole_weight[model.classes_] @ scaler.mean_
    return Probe(whole_weight, whole_bias)


class Classifier(nn.Module):
    """An encoder and a linear head: imu ``(B, C, T)`` -> logits ``(B, classes)``."""

    def __init__(self, encoder: nn.Module, head: nn.Linear):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """Class logits of windows in SI units."""
        return self.head(self.encoder(imu).features)


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: AdamW, warm-up over a tenth of the steps, then cosine."""

    steps: int
    batch: int
    lr: float
    augment: Augment
    seed: int


def fit_classifier(
    model: Classifier, imu: torch.Tensor, label: torch.Tensor, recipe: Recipe
) -> None:
    """Train encoder and head on augmented windows ``(n, C, T)`` with class ids ``(n,)``.

    Each step takes the next ``min(batch, n)`` windows of an endless series of shuffles.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, recipe.steps)
    )
    rows = _shuffled_rows(len(imu), min(recipe.batch, len(imu)), recipe.seed)
    model.train()
    for step in range(recipe.steps):
        chosen = next(rows).to(imu.device)
        generator = step_generator(recipe.seed, step, imu.device)
        view = recipe.augment(imu[chosen], generator, slice(0, len(chosen)), len(chosen))
        with fast_precision(imu.device):
            logits = model(view)
        loss = nn.functional.cross_entropy(logits.float(), label[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
        optimizer.step()
        schedule.step()
    model.eval()


def fast_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the device computes in it natively; no effect elsewhere.

    About halves the time of training on a CPU that can; one that cannot would emulate it slowly.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch cannot be asked.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        native = capabilities.get("avx512_bf16", False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


def warmup_cosine(step: int, steps: int) -> float:
    """Factor of the learning rate at ``step`` (from 0): linear rise, then half a cosine to zero."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def encode_features(encoder: nn.Module, imu: torch.Tensor) -> np.ndarray:
    """Features ``(n, D)`` float32 of windows ``(n, C, T)`` by an encoder in inference mode."""
    encoder.eval()
    with torch.inference_mode():
        parts = [encoder(part).features.float().cpu() for part in imu.split(INFERENCE_BATCH)]
    return torch.cat(parts).numpy()


def predict(model: Classifier, imu: torch.Tensor) -> np.ndarray:
    """Class ids ``(n,)`` of windows ``(n, C, T)``."""
    model.eval()
    with torch.inference_mode(), fast_precision(imu.device):
        parts = [model(part).argmax(dim=1).cpu() for part in imu.split(INFERENCE_BATCH)]
    return torch.cat(parts).numpy()


def _shuffled_rows(count: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pending = torch.empty(0, dtype=torch.int64)
    while True:
        while len(pending) < batch:
            pending = torch.cat([pending, torch.randperm(count, generator=generator)])
        yield pending[:batch]
        pending = pending[batch:]
