"""What all arms on fixed features have in common: the features, their scaling, their trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from sklearn.preprocessing import StandardScaler

from primus_scale.encoders.calibration import Calibration, fit_calibration
from primus_scale.evaluate.arms import Setting, TaskWindows, TrainingRows
from primus_scale.evaluate.draws import Labels

# By which windows features are standardised, the usual first. whitened: by the unlabelled ones, and
# what differs between their sessions is taken out (``encoders.calibration``).
SCALINGS = ("whitened", "unlabelled", "labelled", "none")
FEW_LABELS, TRIALS_OF_FEW_LABELS, TRIALS_OF_ALL = 5, 20, 3
SMALLEST_VARIATION = 1e-6  # of a feature over windows, relative to the largest value of any

Scale = Callable[[np.ndarray], np.ndarray]


class FeatureArm:
    """The base of arms on fixed features ``(n, D)``, what an encoder or a formula gives."""

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

    @cached_property
    def collapsed(self) -> bool:
        """Whether the features are the same for all windows, so that no answer can be right."""
        deviation = self.features.astype(np.float64).std(axis=0)
        largest = np.abs(self.features).max(initial=0.0)
        return bool((deviation <= SMALLEST_VARIATION * largest).all())

    def trials(self, k: Labels) -> int:
        """See ``Arm``; a fit is quick. From five trials a poor scaling was chosen at k = 1."""
        if k == "all":
            return TRIALS_OF_ALL
        return TRIALS_OF_FEW_LABELS if k <= FEW_LABELS else 5

    def prepare(self) -> None:
        """See ``Arm``."""
        _ = self.features

    def marked(self, setting: Setting) -> Setting:
        """The setting, with ``collapsed`` where the features are."""
        return {**setting, "collapsed": True} if self.collapsed else setting

    def scale(self, given: TrainingRows, scaling: str) -> Scale:
        """The map of features ``(n, D)`` to scaled ones, float64, fitted as ``SCALINGS`` says."""
        if scaling == "whitened":
            return self.whitening(given.unlabelled).apply
        rows = {"labelled": given.train, "unlabelled": given.unlabelled, "none": None}[scaling]
        if rows is None:
            return lambda features: features.astype(np.float64)
        fitted: Scale = StandardScaler().fit(np.float64(self.features[rows])).transform
        return fitted

    def whitening(self, rows: np.ndarray) -> Calibration:
        """The whitening by these rows, kept for other fits on them.

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
