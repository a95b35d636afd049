"""The arm that most features are judged by: logistic regression on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from primus_scale.encoders.calibration import Calibration, FeatureCalibration
from primus_scale.evaluate.arms import HeldOutTrial, Setting, TrainingRows, best_setting
from primus_scale.evaluate.classifiers import Probe, fit_probe
from primus_scale.evaluate.feature_arm import FeatureArm

PROBE_STRENGTHS = (0.1, 0.01, 1.0)  # the usual one first


class ProbeArm(FeatureArm):
    """Logistic regression on fixed features ``(n, D)``.

    Penalty and scaling of the features are chosen together, by the same rule and from the same
    values for all kinds of features.
    """

    def choose(self, trials: Sequence[HeldOutTrial]) -> Setting:
        """See ``Arm``; the usual setting is a penalty of 0.1 and the first scaling."""
        settings = [
            {"strength": strength, "scaling": scaling}
            for scaling, strength in itertools.product(self._scalings, PROBE_STRENGTHS)
        ]
        return self.marked(best_setting(self, self._windows, trials, settings))

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; the fit is convex, so it does not depend on the seed."""
        return self.fit(given, setting).predict(self.features[target])

    def fit(self, given: TrainingRows, setting: Setting) -> Probe:
        """The probe that ``predict`` uses."""
        strength, scaling = setting["strength"], setting["scaling"]
        features, label = self.features[given.train], self._windows.label[given.train]
        if scaling == "whitened":
            calibration = self.whitening(given.unlabelled)
            return self._fit_after(calibration, given, strength).after(calibration)
        rows = {"labelled": given.train, "unlabelled": given.unlabelled, "none": None}
        scale_by = rows[scaling]
        return fit_probe(
            features,
            label,
            self._windows.classes,
            strength,
            None if scale_by is None else self.features[scale_by],
        )

    def fit_usual(self, given: TrainingRows) -> tuple[Probe, FeatureCalibration]:
        """The probe with the usual penalty on whitened features, and the whitening as a layer."""
        calibration = self.whitening(given.unlabelled)
        probe = self._fit_after(calibration, given, PROBE_STRENGTHS[0])
        return probe, FeatureCalibration.of(calibration, "whitening")

    def _fit_after(self, calibration: Calibration, given: TrainingRows, strength: float) -> Probe:
        features = calibration.apply(self.features[given.train])
        return fit_probe(
            features, self._windows.label[given.train], self._windows.classes, strength
        )
