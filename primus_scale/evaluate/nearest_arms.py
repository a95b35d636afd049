"""Arms that answer by similarity to labelled windows: the nearest of them, or their class means.

Similarity is the cosine of scaled features. Shapes: m windows asked about, n labelled ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from primus_scale.evaluate.arms import HeldOutTrial, Setting, TrainingRows, best_setting
from primus_scale.evaluate.feature_arm import FeatureArm

NEIGHBOURS = (1, 3, 5, 10, 20)  # to choose from
VOTE_TEMPERATURE = 0.07
AT_ONCE = 1024  # windows asked about in one pass


class NeighboursArm(FeatureArm):
    """The weighted vote of the nearest labelled windows; their number is chosen in trials.

    A window with cosine c votes with exp(c / 0.07). Source: Wu et al., CVPR 2018, arXiv
    1805.01978, section 3.4.
    """

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """See ``Arm``; the usual setting is one neighbour and the first scaling."""
        most = max(len(trial.given.train) for trial in trials)
        numbers = [n for n in NEIGHBOURS if n <= most] or [1]
        settings = [
            {"neighbours": number, "scaling": scaling}
            for scaling, number in itertools.product(self._scalings, numbers)
        ]
        return self.marked(best_setting(self, self._windows, trials, settings))

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; of equal votes the class with the lowest id."""
        scale = self.scale(given, setting["scaling"])
        keys = normalise_rows(scale(self.features[given.train]))
        label = self._windows.label[given.train]
        number = min(setting["neighbours"], len(keys))
        answers = []
        for start in range(0, len(target), AT_ONCE):
            part = target[start : start + AT_ONCE]
            cosine = normalise_rows(scale(self.features[part])) @ keys.T  # (m, n)
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :number]
            vote = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / VOTE_TEMPERATURE)
            votes = np.zeros((len(part), self._windows.classes))
            np.add.at(votes, (np.arange(len(part))[:, None], label[nearest]), vote)
            answers.append(votes.argmax(axis=1))
        return np.concatenate(answers)


class PrototypesArm(FeatureArm):
    """The class whose prototype, the mean of its labelled windows' unit vectors, is most similar.

    Sources: Snell et al., "Prototypical Networks", NeurIPS 2017, section 2.2; unit vectors as in
    SimpleShot, Wang et al., arXiv 1911.04623, section 3.
    """

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """See ``Arm``; only the scaling is open."""
        settings = [{"scaling": scaling} for scaling in self._scalings]
        return self.marked(best_setting(self, self._windows, trials, settings))

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; a class without a labelled window is never the answer."""
        scale = self.scale(given, setting["scaling"])
        keys = normalise_rows(scale(self.features[given.train]))
        label = self._windows.label[given.train]
        held = np.unique(label)
        prototypes = normalise_rows(np.stack([keys[label == one].mean(axis=0) for one in held]))
        cosine = normalise_rows(scale(self.features[target])) @ prototypes.T
        answers: np.ndarray = held[cosine.argmax(axis=1)]
        return answers


def normalise_rows(features: np.ndarray) -> np.ndarray:
    """Rows ``(n, D)`` at length 1; a row of zeros does not change."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, length, out=np.zeros_like(features), where=length > 0)
