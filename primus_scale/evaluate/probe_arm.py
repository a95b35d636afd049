"""Arms of fixed features: logistic regression on what an encoder, or a formula, gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from primus_scale.encoders.calibration import Calibration, fit_calibration
from primus_scale.evaluate.arms import Setting, TaskWindows, TrainingRows, Trial, best_setting
from primus_scale.evaluate.classifiers import Probe, fit_probe
from primus_scale.evaluate.draws import Labels

PROBE_STRENGTHS = (0.01, 0.1, 1.0)
# By which windows features are standardised. whitened: by the unlabelled ones, and what differs
# between their sessions is taken out (``encoders.calibration``).
SCALINGS = ("labelled", "unlabelled", "whitened", "none")
FEW_LABELS, TRIALS_OF_FEW_LABELS = 5, 20


class ProbeArm:
    """Logistic regression on fixed features ``(n, D)``.

    Penalty and scaling of the features are chosen together, by the same rule and from the same
    values for all kinds of features.
    """

    trains = False
    deterministic = True

    def __init__(
        self,
        name: str,
        windows: TaskWindows,
        features: Callable[[], np.ndarray],
        scalings: Sequence[str] = SCALINGS,
    ):
        """features: gives them, and is called once, when they are first needed."""
        self._name = name
        self._windows = windows
        self._compute = features
        self._scalings = tuple(scalings)
        self._whitenings: dict[bytes, Calibration] = {}

    @cached_property
    def features(self) -> np.ndarray:
        """The features; ValueError where some are not finite."""
        features = self._compute()
        if bad := int((~np.isfinite(features)).any(axis=1).sum()):
            raise ValueError(
                f"arm {self._name}: features of {bad} of {len(features)} windows are NaN or "
                "infinite; the encoder's weights are damaged, or were when training ended: export "
                "another checkpoint, or train again"
            )
        return features

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a fit is quick. From five trials a poor scaling was chosen at k = 1."""
        if k == "all":
            return 1
        return TRIALS_OF_FEW_LABELS if k <= FEW_LABELS else 5

    def choose(self, trials: Sequence[Trial]) -> Setting:
        """See ``Arm``; of settings with equal accuracy the one of the strongest penalty."""
        settings = [
            {"strength": strength, "scaling": scaling}
            for strength, scaling in itertools.product(PROBE_STRENGTHS, self._scalings)
        ]
        return best_setting(self, self._windows, trials, settings)

    def predict(self, given: TrainingRows, target: np.ndarray, setting: Setting) -> np.ndarray:
        """See ``Arm``; the fit is convex, so it does not depend on the seed."""
        return self.fit(given, setting).predict(self.features[target])

    def fit(self, given: TrainingRows, setting: Setting) -> Probe:
        """The probe that ``predict`` uses."""
        strength, scaling = setting["strength"], setting["scaling"]
        features, label = self.features[given.train], self._windows.label[given.train]
        if scaling == "whitened":
            calibration = self._whitening(given.unlabelled)
            probe = fit_probe(calibration.apply(features), label, self._windows.classes, strength)
            return probe.after(calibration)
        rows = {"labelled": given.train, "unlabelled": given.unlabelled, "none": None}
        scale_by = rows[scaling]
        return fit_probe(
            features,
            label,
            self._windows.classes,
            strength,
            None if scale_by is None else self.features[scale_by],
        )

    def _whitening(self, rows: np.ndarray) -> Calibration:
        """The whitening by these rows, kept for other probes on them.

        Rows of one session, or features that are the same in all, leave nothing to take out: they
        are scaled only.
        """
        key = rows.tobytes()
        if key not in self._whitenings:
            features, session = self.features[rows], self._windows.session[rows]
            try:
                self._whitenings[key] = fit_calibration(features, session, "whitening")
            except ValueError:
                self._whitenings[key] = fit_calibration(features, session, "scaling")
        return self._whitenings[key]
