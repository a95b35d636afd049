"""A pretrained encoder as a transformer of scikit-learn, for pipelines and searches.

    model = make_pipeline(ImuEncoder("runs/demo", rate_hz=100), LogisticRegression())
    model.fit(windows, labels)              # windows (n, channels, time), as in aeon

Nothing is learned in ``fit``, so folds of a cross-validation cannot leak through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from primus_scale.encoders.card import CARD_FILE
from primus_scale.encoders.pretrained import PretrainedEncoder, load_encoder
from primus_scale.encoders.sources import find_export, is_folder

LOADED_AT_ONCE = 4  # encoders kept for other estimators with the same path


class ImuEncoder(TransformerMixin, BaseEstimator):
    """Windows ``(n, channels, time)`` to features ``(n, D)`` float32 of a frozen encoder.

    path: as of ``load_encoder``. rate_hz, units, channels, check_units: of the windows, as of
    ``PretrainedEncoder.encode``; rate_hz None is the encoder's. calibrated: as of ``load_encoder``.
    The estimator is pickled by its path: the encoder must lie there where it is unpickled.

    ``fit`` and ``transform`` raise ValueError where windows do not fit the encoder, cannot be in
    these units, or have a gap or a dead channel; ``fit`` looks at the first one.
    """

    def __init__(
        self,
        path: str,
        *,
        rate_hz: float | None = None,
        units: str | Sequence[str] | Mapping[str, str] | None = None,
        channels: Sequence[str] | None = None,
        check_units: bool = True,
        calibrated: bool = True,
    ) -> None:
        self.path = path
        self.rate_hz = rate_hz
        self.units = units
        self.channels = channels
        self.check_units = check_units
        self.calibrated = calibrated

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - others call it by this name
        """Check that the encoder loads and takes X ``(n, channels, time)``; learns nothing."""
        first = self._encode(np.asanyarray(X)[:1], check_units=False)
        self.n_features_out_ = int(first.shape[1])
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Features ``(n, D)`` of windows X ``(n, channels, time)``."""
        check_is_fitted(self)
        return self._encode(X, check_units=self.check_units)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """``imu0``, ``imu1``, ...; input_features is not used."""
        check_is_fitted(self)
        return np.array([f"imu{number}" for number in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        """Windows are three-dimensional, and ``fit`` learns nothing."""
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.requires_fit = True
        return tags

    def _encode(self, windows: Any, *, check_units: bool) -> np.ndarray:
        array = np.asanyarray(windows)  # with its mask, if any
        if array.ndim != 3:
            raise ValueError(
                f"windows have shape {array.shape}; give (windows, channels, time), cut from the "
                "recordings"
            )
        folder = find_export(self.path) if is_folder(self.path) else _named_folder(self.path)
        card = folder / CARD_FILE
        written = card.stat().st_mtime_ns if card.exists() else 0
        encoder = _load(folder, self.calibrated, written)
        rate_hz = encoder.rate_hz if self.rate_hz is None else self.rate_hz
        found = encoder.encode(array, rate_hz, self.units, self.channels, check_units=check_units)
        if not found.good.all():
            bad = np.flatnonzero(~found.good)
            raise ValueError(
                f"{len(bad)} of {len(array)} windows have no features, the first is window "
                f"{bad[0]} ({found.quality[bad[0]]}); leave such windows out"
            )
        return found.features


@lru_cache(maxsize=LOADED_AT_ONCE)
def _load(folder: Path, calibrated: bool, written: int) -> PretrainedEncoder:
    """written: when the card was; another export in the same folder is another encoder."""
    return load_encoder(folder, calibrated=calibrated)


@lru_cache(maxsize=LOADED_AT_ONCE)
def _named_folder(source: str) -> Path:
    """The folder of a packaged encoder or one on the Hub, which is asked once in a process.

    So folds and calls of ``transform`` have the same weights, also if a branch moves meanwhile.
    """
    return find_export(source)
