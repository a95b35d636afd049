"""The arms of the few-shot comparison: ways to classify windows from a few labelled ones.

An arm gets one pool of windows, and predicts the classes of some rows from the labels of others.
It chooses its settings (penalty and scaling of a probe; learning rate and steps of a training) by
trials. In a trial some of the label people are held out, and take the part of the test people.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.draws import Labels
from primus_scale.evaluate.features import hand_features
from primus_scale.evaluate.finetune import (
    Classifier,
    Probe,
    Training,
    TrainingSettings,
    encode_features,
    fit_probe,
    predict,
)

PROBE_STRENGTHS = (0.01, 0.1, 1.0)
SCALINGS = ("labelled", "unlabelled", "none")  # by which windows features are standardised
FINETUNE_LR_SHARE = 0.3  # a pretrained encoder is trained at this share of a fresh one's rates
START_SETTING = {"strength": 0.1, "scaling": "unlabelled"}  # of the probe that tuning starts at
FIRST_JUDGED, GROWTH = 20, 1.5  # steps of the first judgement; factor from one to the next
PATIENCE = 3  # early stopping: a training ends after so many times the steps of its best
LEAST_STEPS = 200  # no training stops early before

EncoderFactory = Callable[[int], nn.Module]  # from a seed to an encoder with fresh weights
Setting = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Pool:
    """All windows of a task: imu ``(n, C, T)`` float32 in SI units, class ids ``(n,)``."""

    imu: torch.Tensor
    label: np.ndarray
    classes: int
    rate_hz: float


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a pool that an arm may learn from, and the seed of its random choices.

    train: windows whose labels may be used. unlabelled: windows that may be used without their
    labels, all those of label people who are not held out.
    """

    train: np.ndarray
    unlabelled: np.ndarray
    seed: int


@dataclass(frozen=True)
class Trial:
    """Rows to learn from, and rows of held-out label people to measure the accuracy on."""

    given: TrainingRows
    target: np.ndarray


class Arm(Protocol):
    """One way to classify from few labels."""

    trains: bool  # trains an encoder, which takes as long as hundreds of fits of a probe

    def trials(self, k: Labels) -> int:
        """Number of trials to choose settings by; results with fewer labels vary more."""

    def choose(self, trials: Sequence[Trial]) -> Setting:
        """The setting with the best mean accuracy in ``trials``."""

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """Class ids of the rows ``target``."""


class ProbeArm:
    """Logistic regression on fixed features ``(n, D)``.

    Penalty and scaling of the features are chosen together, by the same rule and from the same
    values for all kinds of features.
    """

    trains = False

    def __init__(self, name: str, pool: Pool, features: np.ndarray):
        """Raise ValueError where features are not finite."""
        if bad := int((~np.isfinite(features)).any(axis=1).sum()):
            raise ValueError(
                f"arm {name}: features of {bad} of {len(features)} windows are NaN or infinite; "
                "the encoder's weights are damaged, or were when training ended: export another "
                "checkpoint, or train again"
            )
        self._pool = pool
        self._features = features

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a fit is quick."""
        return 1 if k == "all" else 5

    def choose(self, trials: Sequence[Trial]) -> Setting:
        """See ``Arm``; of settings with equal accuracy the one of the strongest penalty."""
        settings = [
            {"strength": strength, "scaling": scaling}
            for strength, scaling in itertools.product(PROBE_STRENGTHS, SCALINGS)
        ]
        scores = [
            np.mean([_score(self._pool, trial, self._predict(trial, s)) for trial in trials])
            for s in settings
        ]
        return settings[int(np.argmax(scores))]

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; the fit is convex, so it does not depend on the seed."""
        return self.fit(given, setting).predict(self._features[target])

    def fit(self, given: TrainingRows, setting: Setting) -> Probe:
        """The probe that ``predict`` uses."""
        rows = {"labelled": given.train, "unlabelled": given.unlabelled, "none": None}
        scale_by = rows[setting["scaling"]]
        return fit_probe(
            self._features[given.train],
            self._pool.label[given.train],
            self._pool.classes,
            setting["strength"],
            None if scale_by is None else self._features[scale_by],
        )

    def _predict(self, trial: Trial, setting: Setting) -> np.ndarray:
        return self.predict(trial.given, trial.target, setting)


class TrainedArm:
    """An encoder trained together with its head.

    With ``start`` the training begins with that encoder and a linear probe on its features;
    without, with fresh weights.

    Learning rate and steps are chosen together. For each rate there is one training in each trial.
    Its accuracy on the held-out people is measured during the training (``judged_steps``), and
    averaged over trials. A training ends after ``PATIENCE`` times the steps of its best accuracy,
    or at ``config.steps``. The rate and number of steps with the best accuracy are chosen, and of
    equal accuracies the fewest steps. A shorter training is exactly the beginning of a longer one
    (``Training``), so the chosen number of steps gives the classifier that was measured.
    ``at_limit`` in the setting: the longest training allowed was the best, so more steps might be
    better.
    """

    trains = True

    def __init__(
        self,
        pool: Pool,
        fresh: EncoderFactory,
        augment: Augment,
        config: FewShotConfig,
        start: tuple[nn.Module, ProbeArm] | None = None,
    ):
        share = FINETUNE_LR_SHARE if start else 1.0
        self._lrs = tuple(lr * share for lr in config.lrs)
        self._pool = pool
        self._label = torch.from_numpy(pool.label).to(pool.imu.device)
        self._fresh = fresh
        self._augment = augment
        self._config = config
        self._start = start

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a trial takes as long as a draw of the test."""
        return 1 if k == "all" or k >= 5 else 2

    def choose(self, trials: Sequence[Trial]) -> Setting:
        """See ``Arm`` and the class. Raises ValueError where no training stays finite."""
        best: tuple[float, int, float] | None = None  # accuracy, steps negated, rate negated
        for lr in self._lrs:
            for steps, accuracy in self._curve(trials, lr):
                best = max(best or (-1.0, 0, 0.0), (accuracy, -steps, -lr))
        if best is None:
            rates = ", ".join(f"{lr:g}" for lr in self._lrs)
            raise ValueError(f"training diverges at rates of {rates}; give smaller values of lrs")
        steps, lr = -best[1], -best[2]
        return {"lr": lr, "steps": steps, "at_limit": steps == self._config.steps}

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; the seed determines fresh weights, batches and augmentations."""
        training = self._training(given, setting["lr"])
        try:
            model = training.advance(setting["steps"])
        except FloatingPointError as error:
            raise ValueError(
                f"training at a rate of {setting['lr']:g} diverges ({error}); give smaller values "
                "of lrs"
            ) from None
        return predict(model, self._pool.imu[self._rows(target)])

    def _curve(self, trials: Sequence[Trial], lr: float) -> list[tuple[int, float]]:
        """Pairs of steps and mean accuracy on held-out people, until early stopping."""
        trainings = [self._training(trial.given, lr) for trial in trials]
        targets = [self._pool.imu[self._rows(trial.target)] for trial in trials]
        curve: list[tuple[int, float]] = []
        for steps in judged_steps(self._config.steps):
            try:
                models = [training.advance(steps) for training in trainings]
            except FloatingPointError:
                break
            answers = [predict(*pair) for pair in zip(models, targets, strict=True)]
            scores = [_score(self._pool, *pair) for pair in zip(trials, answers, strict=True)]
            curve.append((steps, float(np.mean(scores))))
            best_steps, _ = max(curve, key=lambda point: (point[1], -point[0]))
            if steps >= max(PATIENCE * best_steps, LEAST_STEPS):
                break
        return curve

    def _training(self, given: TrainingRows, lr: float) -> Training:
        model = self._initial_model(given).to(self._pool.imu.device)
        settings = TrainingSettings(self._config.batch, lr, self._augment, given.seed)
        rows = self._rows(given.train)
        return Training(model, self._pool.imu[rows], self._label[rows], settings)

    def _rows(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self._label.device)

    def _initial_model(self, given: TrainingRows) -> Classifier:
        if self._start is None:
            encoder = self._fresh(given.seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(given.seed)
                return Classifier(
                    encoder, nn.Linear(_width(encoder, self._pool), self._pool.classes)
                )
        encoder, arm = self._start
        probe = arm.fit(given, START_SETTING)
        head = nn.Linear(probe.weight.shape[1], self._pool.classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(probe.weight))
            head.bias.copy_(torch.from_numpy(np.maximum(probe.bias, -1e4)))
        return Classifier(copy.deepcopy(encoder), head)


def judged_steps(limit: int) -> list[int]:
    """Numbers of steps after which the accuracy of a training is measured; the last is ``limit``.

    They grow by a factor, since later steps change less.
    """
    steps = [FIRST_JUDGED]
    while GROWTH**1.5 * steps[-1] < limit:  # so that the last two are not close
        steps.append(round(GROWTH * steps[-1]))
    return [*(number for number in steps if number < limit), limit]


def build_arms(
    pool: Pool,
    pretrained: nn.Module,
    fresh: EncoderFactory,
    augment: Augment,
    config: FewShotConfig,
    seed: int,
) -> dict[str, Arm]:
    """The arms by name; without ``config.finetune`` the fine-tuned one is left out.

    seed: of the random weights. Features of frozen encoders are computed here, once. Raises
    ValueError where they are not finite.
    """
    learned = ProbeArm("pretrained", pool, encode_features(pretrained, pool.imu))
    unlearned = encode_features(fresh(seed).to(pool.imu.device), pool.imu)
    arms: dict[str, Arm] = {"pretrained": learned}
    if config.finetune:
        start = (pretrained, learned)
        arms["pretrained_finetuned"] = TrainedArm(pool, fresh, augment, config, start)
    arms["scratch"] = TrainedArm(pool, fresh, augment, config)
    arms["random"] = ProbeArm("random", pool, unlearned)
    crafted = hand_features(pool.imu.cpu().numpy(), pool.rate_hz)
    arms["features"] = ProbeArm("features", pool, crafted)
    return arms


def _score(pool: Pool, trial: Trial, answers: np.ndarray) -> float:
    return float(np.mean(answers == pool.label[trial.target]))


def _width(encoder: nn.Module, pool: Pool) -> int:
    return encode_features(encoder, pool.imu[:1].to(next(encoder.parameters()).device)).shape[1]
