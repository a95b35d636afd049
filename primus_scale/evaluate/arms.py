"""What an arm of the few-shot comparison is: a way to classify windows from a few labelled ones.

An arm gets the windows of a task, and predicts the classes of some rows from the labels of others.
It chooses its settings (penalty and scaling of a probe; learning rate and steps of a training) by
trials. In a trial some of the label people are held out, and take the part of the test people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from primus_scale.evaluate.draws import Labels

Setting = dict[str, Any]  # JSON
# Names how settings are chosen and encoders tuned, as a part of the keys of finished work. With
# another text, work that an earlier version finished is not used.
METHOD = "one standard error in all arms, half of the first weights kept, probes at their optimum"


@dataclass(frozen=True)
class TaskWindows:
    """All windows of a task, those of label people first.

    imu ``(n, C, T)`` float32 in SI units; label ``(n,)`` class ids; person and session ``(n,)``
    names. label_windows: the number of windows of label people.
    """

    imu: torch.Tensor
    label: np.ndarray
    person: np.ndarray
    session: np.ndarray
    classes: int
    rate_hz: float
    label_windows: int


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a task that an arm may learn from, and the seed of its random choices.

    train: windows whose labels may be used. unlabelled: windows that may be used without their
    labels, all those of label people who are not held out.
    """

    train: np.ndarray
    unlabelled: np.ndarray
    seed: int


@dataclass(frozen=True)
class HeldOutTrial:
    """A trial of settings: rows to learn from, and held-out label people's rows to answer."""

    given: TrainingRows
    target: np.ndarray


class Arm(Protocol):
    """One way to classify from few labels."""

    trains: bool  # trains an encoder, which takes as long as hundreds of fits of a probe
    deterministic: bool  # its answers do not depend on the seed

    def trials(self, k: Labels) -> int:
        """Number of trials in which settings are compared with k labels a class."""

    def prepare(self) -> None:
        """Compute what all its fits have in common, before processes are forked for them."""

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """The setting to use, by its accuracy in ``trials``."""

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """Class ids of the rows ``target``."""


def score(windows: TaskWindows, trial: HeldOutTrial, answers: np.ndarray) -> float:
    """Accuracy of ``answers``, class ids of the trial's held-out rows."""
    return float(np.mean(answers == windows.label[trial.target]))


def best_setting(
    arm: Arm, windows: TaskWindows, trials: Sequence[HeldOutTrial], settings: Sequence[Setting]
) -> Setting:
    """The first of ``settings``, the usual one, unless another is clearly better in ``trials``.

    Then it is the best; of equal ones the first. See ``clearly_better``, with trials as units.
    """
    scores = np.array(
        [
            [
                score(windows, trial, arm.predict(trial.given, trial.target, setting))
                for trial in trials
            ]
            for setting in settings
        ]
    )
    clear = np.where(clearly_better(scores - scores[0]), scores.mean(axis=1), -np.inf)
    return settings[int(np.argmax(clear))] if np.isfinite(clear).any() else settings[0]


def clearly_better(gains: np.ndarray) -> np.ndarray:
    """Whether mean gains are above their standard error, bool ``(...)``.

    gains ``(..., n)``: differences of accuracy to the usual setting, in n trials or on n people;
    with one of them there is no standard error. This is the one-standard-error rule of Breiman et
    al., Classification and Regression Trees, 1984, section 3.4.3.
    """
    count = gains.shape[-1]
    error = gains.std(axis=-1, ddof=1) / np.sqrt(count) if count > 1 else 0.0
    return np.asarray(gains.mean(axis=-1) > error)
