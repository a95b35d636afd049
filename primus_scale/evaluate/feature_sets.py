"""Published sets of time-series features, by the libraries of the extra ``[baselines]``.

Each function maps windows ``(n, C, T)`` to features ``(n, D)`` float32. A value that a formula does
not have for some window, such as the skewness of a constant, is 0.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np

# What a setting of the evaluation needs: an arm, or the mixed model.
PACKAGES = {"catch22": "pycatch22", "tsfel": "tsfel", "lora": "peft", "mixed_model": "statsmodels"}
TOLD_WINDOWS = 200  # from one line of progress to the next


def package_version(need: str) -> str:
    """Version of the package that an arm (or the mixed model) needs, empty if it needs none.

    ValueError where it is absent.
    """
    package = PACKAGES.get(need)
    if package is None:
        return ""
    try:
        return version(package)
    except PackageNotFoundError:
        raise ValueError(
            f"few_shot: {need} needs the package {package}, which is not installed; "
            f"pip install 'primus-scale[baselines]', or leave {need} out"
        ) from None


def catch22_features(imu: np.ndarray) -> np.ndarray:
    """catch22 with mean and deviation, 24 features a channel.

    Mean and deviation are added, as its authors advise where level and scale mean something. 0.4 ms
    a channel. Source: Lubba et al., Data Mining and Knowledge Discovery 2019, arXiv 1901.10200. The
    package is under the GPL, and so imported only where this arm is asked for.
    """
    catch22 = importlib.import_module("pycatch22").catch22_all
    rows = [
        [value for channel in window for value in catch22(channel, catch24=True)["values"]]
        for window in imu.astype(np.float64).tolist()
    ]
    return _finite(np.array(rows))


def tsfel_features(
    imu: np.ndarray, rate_hz: float, report: Callable[[str], None] = print
) -> np.ndarray:
    """All statistical, temporal, spectral and fractal features of TSFEL, 156 a channel at 50 Hz.

    They take about 0.1 s a window; ``report`` is called with lines of progress. Source: Barandas et
    al., SoftwareX 2020, doi 10.1016/j.softx.2020.100456.
    """
    tsfel = importlib.import_module("tsfel")
    settings = tsfel.get_features_by_domain()

    def parts() -> Iterator[np.ndarray]:
        for start in range(0, len(imu), TOLD_WINDOWS):
            part = list(imu[start : start + TOLD_WINDOWS].transpose(0, 2, 1).astype(np.float64))
            # Channels that are constant divide by zero; _finite has what they get.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield tsfel.time_series_features_extractor(
                    settings, part, fs=rate_hz, verbose=0, n_jobs=None
                ).to_numpy()
            report(f"tsfel features of {min(start + TOLD_WINDOWS, len(imu))} of {len(imu)} windows")

    return _finite(np.concatenate(list(parts())))


def _finite(features: np.ndarray) -> np.ndarray:
    return np.where(np.abs(features) <= np.finfo(np.float32).max, features, 0).astype(np.float32)
