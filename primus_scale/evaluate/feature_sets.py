"""Published sets of time-series features, by the libraries of the extra ``[baselines]``.

Each function maps windows ``(n, C, T)`` to features ``(n, D)`` float32. A value that a formula does
not have for some window, such as the skewness of a constant, is 0.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from primus_scale.processes import ENDED, Died, open_processes

# What a setting of the evaluation needs: an arm, or the mixed model.
PACKAGES = {"catch22": "pycatch22", "tsfel": "tsfel", "lora": "peft", "mixed_model": "statsmodels"}
PART_WINDOWS = 100  # that a process computes at once, and from one line of progress to the next


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
    imu: np.ndarray, rate_hz: float, report: Callable[[str], None] = print, jobs: int = 1
) -> np.ndarray:
    """All statistical, temporal, spectral and fractal features of TSFEL, 156 a channel at 50 Hz.

    They take about 0.1 s a window. jobs: processes at once (``open_processes``), which do not
    change the features. report: called with lines of progress. Source: Barandas et al., SoftwareX
    2020, doi 10.1016/j.softx.2020.100456.
    """
    importlib.import_module("tsfel")  # before processes are forked, which then have it
    starts = range(0, len(imu), PART_WINDOWS)
    waiting, found = list(starts), dict[int, np.ndarray]()
    with open_processes(jobs) as processes:
        while waiting or processes.busy:
            while waiting and not processes.full:
                start = waiting.pop(0)
                part = imu[start : start + PART_WINDOWS]
                processes.start(start, partial(_tsfel_part, part, rate_hz))
            start, item = processes.wait()
            if isinstance(item, Died):
                raise ChildProcessError(
                    f"a process that computed tsfel features ended early ({item.how}); start the "
                    "evaluation again, with fewer --jobs"
                )
            if item is not ENDED:
                found[start] = item
                done = sum(map(len, found.values()))
                report(f"tsfel features of {done} of {len(imu)} windows")
    return _finite(np.concatenate([found[start] for start in starts]))


def _tsfel_part(imu: np.ndarray, rate_hz: float) -> Iterator[np.ndarray]:
    """The features ``(n, D)`` of windows ``(n, C, T)``, as a piece of work."""
    tsfel = importlib.import_module("tsfel")
    windows = list(imu.transpose(0, 2, 1).astype(np.float64))
    # Channels that are constant divide by zero; _finite has what they get.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = tsfel.time_series_features_extractor(
            tsfel.get_features_by_domain(), windows, fs=rate_hz, verbose=0, n_jobs=None
        )
    yield features.to_numpy()


def _finite(features: np.ndarray) -> np.ndarray:
    return np.where(np.abs(features) <= np.finfo(np.float32).max, features, 0).astype(np.float32)
