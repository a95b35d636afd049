"""The arms that train an encoder: from fresh weights, or from the pretrained ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.encoders.base import ImuEncoder, NoHeads
from primus_scale.evaluate.arms import (
    HeldOutTrial,
    Setting,
    TaskWindows,
    TrainingRows,
    clearly_better,
    score,
)
from primus_scale.evaluate.classifiers import (
    Classifier,
    Training,
    TrainingSettings,
    encode_features,
    predict,
)
from primus_scale.evaluate.draws import Labels
from primus_scale.evaluate.lora import adapted_copy, check_adaptable
from primus_scale.evaluate.probe_arm import ProbeArm

FINETUNE_LR_SHARE = 0.3  # a pretrained encoder is trained at this share of a fresh one's rates
KEPT = 0.5  # share of the weights before fine-tuning in those after it
FIRST_JUDGED, GROWTH = 20, 1.5  # steps of the first judgement; factor from one to the next
PATIENCE = 3  # early stopping: a training ends after so many times the steps of its best
LEAST_STEPS = 200  # no training stops early before


class _Judged(NamedTuple):
    """The accuracy of a training after some steps: the mean over trials, and that of each person.

    of_people ``(n,)``: of the held-out people of the first trial, then of the next.
    """

    lr: float
    steps: int
    accuracy: float
    of_people: np.ndarray


EncoderFactory = Callable[[int], nn.Module]  # from a seed to an encoder with fresh weights


class TrainedArm:
    """An encoder trained together with its head.

    With ``start`` the training begins with that encoder and a linear probe on its features, in the
    usual setting (Kumar et al., ICLR 2022, arXiv 2202.10054). The probe's calibration is a layer
    that is not trained, and the classifier's weights are halfway between those before and after
    training (``Training``). Without, it begins with fresh weights.

    Learning rate and steps are chosen together. For each rate there is one training in each trial.
    Its accuracy on the held-out people is measured during the training (``judged_steps``), and
    averaged over trials. A training ends after ``PATIENCE`` times the steps of its best accuracy,
    or at ``config.steps``. The rate and number of steps with the best accuracy are chosen, and of
    equal accuracies the fewest steps. With ``start`` there is no training, 0 steps, unless that is
    clearly better on the held-out people (``clearly_better``). A shorter training is exactly the
    beginning of a longer one (``Training``), so the chosen number of steps gives the classifier
    that was measured.
    ``at_limit`` in the setting: the longest training allowed was the best, so more steps might be
    better.
    """

    trains = True
    deterministic = False

    def __init__(
        self,
        windows: TaskWindows,
        fresh: EncoderFactory,
        augment: Augment,
        config: FewShotConfig,
        start: tuple[nn.Module, ProbeArm] | None = None,
        adapters: bool = False,
    ):
        """adapters: train low-rank adapters of ``start`` instead of its weights (``lora``)."""
        share = FINETUNE_LR_SHARE if start and not adapters else 1.0
        self._lrs = tuple(lr * share for lr in config.lrs)
        self._windows = windows
        self._label = torch.from_numpy(windows.label).to(windows.imu.device)
        self._fresh = fresh
        self._augment = augment
        self._config = config
        self._start = start
        self._adapters = adapters
        if start and adapters:
            check_adaptable(start[0], windows.imu[:1])

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a trial takes as long as a draw of the test."""
        return 1 if k == "all" or k >= 5 else 2

    def prepare(self) -> None:
        """See ``Arm``; the probe that a training starts with needs features."""
        if self._start is not None:
            self._start[1].prepare()

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """See ``Arm`` and the class. Raises ValueError where no training stays finite."""
        judged = [point for lr in self._lrs for point in self._curve(trials, lr)]
        if not judged:
            rates = ", ".join(f"{lr:g}" for lr in self._lrs)
            raise ValueError(f"training diverges at rates of {rates}; give smaller values of lrs")
        best = max(judged, key=lambda point: (point.accuracy, -point.steps, -point.lr))
        if self._start:
            unchanged = next(point for point in judged if not point.steps)
            if not clearly_better(best.of_people - unchanged.of_people):
                best = unchanged
        return {"lr": best.lr, "steps": best.steps, "at_limit": best.steps == self._config.steps}

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
        return predict(model, self._windows.imu[self._rows(target)])

    def _curve(self, trials: Sequence[HeldOutTrial], lr: float) -> list[_Judged]:
        """The accuracy on held-out people after some numbers of steps, until early stopping."""
        trainings = [self._training(trial.given, lr) for trial in trials]
        targets = [self._windows.imu[self._rows(trial.target)] for trial in trials]
        curve: list[_Judged] = []
        unchanged = [0] if self._start else []
        for steps in (*unchanged, *judged_steps(self._config.steps)):
            try:
                models = [training.advance(steps) for training in trainings]
            except FloatingPointError:
                break
            answers = [predict(*pair) for pair in zip(models, targets, strict=True)]
            curve.append(self._judge(trials, answers, lr, steps))
            best = max(curve, key=lambda point: (point.accuracy, -point.steps))
            if steps >= max(PATIENCE * best.steps, LEAST_STEPS):
                break
        return curve

    def _judge(
        self, trials: Sequence[HeldOutTrial], answers: Sequence[np.ndarray], lr: float, steps: int
    ) -> _Judged:
        """The point of a curve for the answers in each trial."""
        scores, of_people = [], []
        for trial, given in zip(trials, answers, strict=True):
            scores.append(score(self._windows, trial, given))
            right = given == self._windows.label[trial.target]
            people = self._windows.person[trial.target]
            of_people += [right[people == name].mean() for name in np.unique(people)]
        return _Judged(lr, steps, float(np.mean(scores)), np.array(of_people))

    def _training(self, given: TrainingRows, lr: float) -> Training:
        model = self._initial_model(given).to(self._windows.imu.device)
        if isinstance(model.encoder, ImuEncoder):
            model.encoder.heads = NoHeads()
        kept = KEPT if self._start else 0.0
        settings = TrainingSettings(self._config.batch, lr, self._augment, given.seed, kept)
        rows = self._rows(given.train)
        return Training(model, self._windows.imu[rows], self._label[rows], settings)

    def _rows(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self._label.device)

    def _initial_model(self, given: TrainingRows) -> Classifier:
        if self._start is None:
            encoder = self._fresh(given.seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(given.seed)
                return Classifier(
                    encoder, nn.Linear(_width(encoder, self._windows), self._windows.classes)
                )
        encoder, arm = self._start
        probe, calibration = arm.fit_usual(given)
        head = nn.Linear(probe.weight.shape[1], self._windows.classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(probe.weight))
            head.bias.copy_(torch.from_numpy(np.maximum(probe.bias, -1e4)))
        if self._adapters:
            encoder = adapted_copy(encoder, self._windows.imu[:1], given.seed)
        else:
            encoder = copy.deepcopy(encoder)
        return Classifier(encoder, head, calibration)


def judged_steps(limit: int) -> list[int]:
    """Numbers of steps after which the accuracy of a training is measured; the last is ``limit``.

    They grow by a factor, since later steps change less.
    """
    steps = [FIRST_JUDGED]
    while GROWTH**1.5 * steps[-1] < limit:  # so that the last two are not close
        steps.append(round(GROWTH * steps[-1]))
    return [*(number for number in steps if number < limit), limit]


def _width(encoder: nn.Module, windows: TaskWindows) -> int:
    return encode_features(encoder, windows.imu[:1].to(next(encoder.parameters()).device)).shape[1]
