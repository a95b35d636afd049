"""The arms of the few-shot comparison: ways to classify windows from a few labelled ones.

An arm sees one pool of windows and predicts the classes of some rows from the labels of others.
It has one setting (penalty of a probe, learning rate of a training), which the protocol chooses
on people whose labels may be used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.draws import Labels
from primus_scale.evaluate.features import hand_features
from primus_scale.evaluate.finetune import (
    Classifier,
    Recipe,
    encode_features,
    fit_classifier,
    fit_probe,
    predict,
)

PROBE_STRENGTHS = (0.01, 0.1, 1.0)
FINETUNE_LR_SHARE = 0.3  # a pretrained encoder is tuned with smaller steps than a fresh one

EncoderFactory = Callable[[int], nn.Module]  # from a seed to an encoder with fresh weights


@dataclass(frozen=True)
class Pool:
    """All windows of a task: imu ``(n, C, T)`` float32 in SI units, class ids ``(n,)``."""

    imu: torch.Tensor
    label: np.ndarray
    classes: int
    rate_hz: float


class Arm(Protocol):
    """One way to classify from few labels.

    ``settings`` are the values among which the protocol chooses.
    """

    settings: tuple[float, ...]

    def trials(self, k: Labels) -> int:
        """Trials on held-out people to spend on each setting; fewer labels leave more to chance."""

    def predict(
        self, train: np.ndarray, target: np.ndarray, setting: float, seed: int
    ) -> np.ndarray:
        """Class ids of the rows ``target`` from the labels of the rows ``train`` alone."""


class ProbeArm:
    """Logistic regression on features ``(n, D)`` that stay as they are."""

    settings: tuple[float, ...] = PROBE_STRENGTHS

    def __init__(self, pool: Pool, features: np.ndarray):
        self._pool = pool
        self._features = features

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a fit costs next to nothing."""
        return 1 if k == "all" else 5

    def predict(
        self, train: np.ndarray, target: np.ndarray, setting: float, seed: int
    ) -> np.ndarray:
        """See ``Arm``; ``seed`` plays no part, since the fit is convex."""
        label = self._pool.label[train]
        probe = fit_probe(self._features[train], label, self._pool.classes, setting)
        return probe.predict(self._features[target])


class TrainedArm:
    """An encoder trained together with its head.

    With ``start`` it begins at that encoder and at a linear probe on its features; without, at
    fresh weights.
    """

    def __init__(
        self,
        pool: Pool,
        fresh: EncoderFactory,
        augment: Augment,
        config: FewShotConfig,
        start: tuple[nn.Module, np.ndarray] | None = None,
    ):
        self.settings = tuple(lr * (FINETUNE_LR_SHARE if start else 1.0) for lr in config.lrs)
        self._pool = pool
        self._label = torch.from_numpy(pool.label).to(pool.imu.device)
        self._fresh = fresh
        self._augment = augment
        self._config = config
        self._start = start

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a fit costs as much as a draw of the test itself."""
        return 1 if k == "all" or k >= 10 else 2

    def predict(
        self, train: np.ndarray, target: np.ndarray, setting: float, seed: int
    ) -> np.ndarray:
        """See ``Arm``; ``seed`` decides fresh weights, batches and augmentations."""
        model = self._initial_model(train, seed).to(self._pool.imu.device)
        recipe = Recipe(self._config.steps, self._config.batch, setting, self._augment, seed)
        rows = torch.from_numpy(train).to(self._label.device)
        fit_classifier(model, self._pool.imu[rows], self._label[rows], recipe)
        return predict(model, self._pool.imu[torch.from_numpy(target).to(self._label.device)])

    def _initial_model(self, train: np.ndarray, seed: int) -> Classifier:
        if self._start is None:
            encoder = self._fresh(seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return Classifier(
                    encoder, nn.Linear(_width(encoder, self._pool), self._pool.classes)
                )
        encoder, features = self._start
        probe = fit_probe(
            features[train], self._pool.label[train], self._pool.classes, strength=0.1
        )
        head = nn.Linear(features.shape[1], self._pool.classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(probe.weight))
            head.bias.copy_(torch.from_numpy(np.maximum(probe.bias, -1e4)))
        return Classifier(copy.deepcopy(encoder), head)


def build_arms(
    pool: Pool,
    pretrained: nn.Module,
    fresh: EncoderFactory,
    augment: Augment,
    config: FewShotConfig,
    seed: int,
) -> dict[str, Arm]:
    """The arms by name; ``config.finetune`` may leave one out. ``seed`` makes the random weights.

    Features of frozen encoders are computed here, once.
    """
    learned = encode_features(pretrained, pool.imu)
    unlearned = encode_features(fresh(seed).to(pool.imu.device), pool.imu)
    arms: dict[str, Arm] = {"pretrained": ProbeArm(pool, learned)}
    if config.finetune:
        start = (pretrained, learned)
        arms["pretrained_finetuned"] = TrainedArm(pool, fresh, augment, config, start)
    arms["scratch"] = TrainedArm(pool, fresh, augment, config)
    arms["random"] = ProbeArm(pool, unlearned)
    arms["features"] = ProbeArm(pool, hand_features(pool.imu.cpu().numpy(), pool.rate_hz))
    return arms


def _width(encoder: nn.Module, pool: Pool) -> int:
    return encode_features(encoder, pool.imu[:1].to(next(encoder.parameters()).device)).shape[1]
