"""Arms that a practitioner would build without pretraining: a random forest, and ridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

from primus_scale.evaluate.arms import (
    HeldOutTrial,
    Setting,
    TaskWindows,
    TrainingRows,
    best_setting,
)
from primus_scale.evaluate.draws import Labels

TREES = 300
LEAF_WINDOWS = (1, 4)  # least windows in a leaf, to choose from
RIDGE_PENALTIES = np.logspace(-3, 3, 10)  # as in MiniRocket's paper, chosen by leave-one-out
RIDGE_SCALINGS = ("labelled", "unlabelled")


class _BaselineArm:
    """What both arms have in common. features: computes them ``(n, D)``; called when needed."""

    trains = False

    def __init__(self, windows: TaskWindows, features: Callable[[], np.ndarray]):
        self._windows = windows
        self._features = features

    def trials(self, k: Labels) -> int:
        """See ``Arm``."""
        return 1 if k == "all" else 3

    def prepare(self) -> None:
        """See ``Arm``."""
        self._features()


class ForestArm(_BaselineArm):
    """A random forest (Breiman 2001) on hand-crafted features ``(n, D)``."""

    deterministic = False

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """See ``Arm``; the usual setting is leaves of one window."""
        settings = [{"leaf_windows": number} for number in LEAF_WINDOWS]
        return best_setting(self, self._windows, trials, settings)

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; the seed determines the trees."""
        forest = RandomForestClassifier(
            TREES, min_samples_leaf=setting["leaf_windows"], random_state=given.seed
        )
        features = self._features()
        forest.fit(features[given.train], self._windows.label[given.train])
        answers: np.ndarray = forest.predict(features[target])
        return answers


class RidgeArm(_BaselineArm):
    """Ridge classification of many features ``(n, D)``, such as MiniRocket's.

    scaler: makes what scales them, an estimator of scikit-learn.
    """

    deterministic = True

    def __init__(
        self,
        windows: TaskWindows,
        features: Callable[[], np.ndarray],
        scaler: Callable[[], TransformerMixin] = StandardScaler,
    ):
        super().__init__(windows, features)
        self._scaler = scaler
        self._of_unlabelled: dict[bytes, TransformerMixin] = {}

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """See ``Arm``; the penalty is chosen in each fit, without held-out people."""
        settings = [{"scaling": scaling} for scaling in RIDGE_SCALINGS]
        return best_setting(self, self._windows, trials, settings)

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``."""
        features = self._features()
        unlabelled = setting["scaling"] == "unlabelled"
        scaler = self._scaling(given.unlabelled) if unlabelled else self._fitted(given.train)
        model = RidgeClassifierCV(RIDGE_PENALTIES)
        model.fit(scaler.transform(features[given.train]), self._windows.label[given.train])
        answers: np.ndarray = model.predict(scaler.transform(features[target]))
        return answers

    def _scaling(self, rows: np.ndarray) -> TransformerMixin:
        """The scaler of unlabelled rows, kept: all draws have the same, and it takes a second."""
        key = rows.tobytes()
        if key not in self._of_unlabelled:
            self._of_unlabelled[key] = self._fitted(rows)
        return self._of_unlabelled[key]

    def _fitted(self, rows: np.ndarray) -> TransformerMixin:
        return self._scaler().fit(self._features()[rows])
