"""Encoders that a user names in ``few_shot.own``: a Python function, or an exported encoder.

A function gets imu ``(N, C, T)`` float32 in SI units and their rate_hz, and returns features
``(N, D)``. It is called with some windows at a time, and must compute the features of a window from
that window alone. docs/arms.md has an example.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from primus_scale.config.few_shot import is_function
from primus_scale.encoders.pretrained import PretrainedEncoder, load_encoder
from primus_scale.evaluate.arms import TaskWindows
from primus_scale.evaluate.classifiers import INFERENCE_BATCH, encode_features
from primus_scale.storage.names import nearest

ALONE = 3  # windows whose features are computed once more, each by itself, and must be the same
LARGEST_CHANGE = 1e-2  # of such a feature, relative to its deviation over windows
ROUNDING = 1e-5  # the same, relative to the largest feature

OwnFunction = Callable[[np.ndarray, float], Any]


def own_features(name: str, source: str, windows: TaskWindows, calibrated: bool) -> np.ndarray:
    """Features ``(n, D)`` float32 of all windows by the encoder ``few_shot.own.NAME=SOURCE``.

    calibrated: use the calibration that an exported encoder has. Raises ValueError or
    FileNotFoundError, with the encoder's name, where it is missing, does not fit the windows,
    raises, or returns something else than finite features. Also where the features of a window
    depend on the other windows or on chance.
    """
    place = f"few_shot.own.{name}"
    if not is_function(source):
        return _exported_features(place, source, windows, calibrated)
    function, imu = load_function(place, source), windows.imu.cpu().numpy()
    parts = [
        _call(place, source, function, imu[start : start + INFERENCE_BATCH], windows.rate_hz)
        for start in range(0, len(imu), INFERENCE_BATCH)
    ]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(
            f"{place}: {source} returned features of different widths {sorted(widths)} for windows "
            "of one shape; return as many for every window"
        )
    features = np.concatenate(parts)
    rows = np.linspace(0, len(imu) - 1, ALONE).astype(np.int64)
    alone = [_call(place, source, function, imu[[row]], windows.rate_hz) for row in rows]
    change = np.abs(features[rows] - np.concatenate(alone))
    allowed = LARGEST_CHANGE * features.std(axis=0) + ROUNDING * np.abs(features).max()
    if (change > allowed).any():
        raise ValueError(
            f"{place}: {source} gives a window other features when it is given alone (up to "
            f"{change.max():.2g} apart), so they depend on the other windows or on chance; put a "
            "network in inference mode (eval()), and standardise by constants"
        )
    return features


def check_sources(own: Mapping[str, str]) -> None:
    """Look for the encoders of ``few_shot.own``: what is missing shows before windows are read.

    Raises ValueError or FileNotFoundError as ``own_features``.
    """
    for name, source in own.items():
        place = f"few_shot.own.{name}"
        if is_function(source):
            load_function(place, source)
        else:
            _load_exported(place, source, calibrated=True)


def load_function(place: str, source: str) -> OwnFunction:
    """The function of ``module:function``; ValueError naming ``place`` where it is not there."""
    module_name, function_name = source.split(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"{place}: module {module_name} cannot be imported ({type(error).__name__}: {error}); "
            "install it, or name the folder that it lies in: PYTHONPATH=FOLDER primus-scale ..."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [one for one in vars(module) if callable(getattr(module, one))]
        raise ValueError(
            f"{place}: module {module_name} has no function {function_name}"
            f"{nearest(function_name, known)}"
        )
    found: OwnFunction = function
    return found


def _call(
    place: str, source: str, function: OwnFunction, imu: np.ndarray, rate_hz: float
) -> np.ndarray:
    """Features of some windows, checked; the function gets a copy, which it may change."""
    try:
        returned = function(imu.copy(), rate_hz)
        features = np.asarray(returned, dtype=np.float32)
    except Exception as error:
        raise ValueError(
            f"{place}: {source} failed on imu {imu.shape} float32 at {rate_hz:g} Hz "
            f"({type(error).__name__}: {error}); it must take that and return an array (N, D)"
        ) from error
    if features.ndim != 2 or len(features) != len(imu) or not features.shape[1]:
        raise ValueError(
            f"{place}: {source} returned shape {features.shape} for {len(imu)} windows; return "
            f"features ({len(imu)}, D), a row for each window"
        )
    if bad := int((~np.isfinite(features)).any(axis=1).sum()):
        raise ValueError(
            f"{place}: {source} returned NaN or infinity for {bad} of {len(imu)} windows, which "
            "are finite themselves; look for a division by zero, or damaged weights"
        )
    return features


def _exported_features(
    place: str, source: str, windows: TaskWindows, calibrated: bool
) -> np.ndarray:
    encoder = _load_exported(place, source, calibrated)
    wanted = (len(encoder.channels), encoder.window_samples, encoder.rate_hz)
    found = (*windows.imu.shape[1:], windows.rate_hz)
    if wanted != found:
        raise ValueError(
            f"{place}: the encoder {source} takes windows of {wanted[0]} channels x {wanted[1]} "
            f"samples at {wanted[2]:g} Hz, and these are {found[0]} x {found[1]} at {found[2]:g} "
            "Hz; give one that fits, or build the windows that way"
        )
    return encode_features(encoder.to(windows.imu.device), windows.imu)


def _load_exported(place: str, source: str, calibrated: bool) -> PretrainedEncoder:
    try:
        return load_encoder(source, calibrated=calibrated)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{place}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
