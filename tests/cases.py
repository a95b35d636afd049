"""The small inputs that fail, and the motion behind them; never copied into the project."""

import os
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

from tests.conftest import require

ROOT = Path(__file__).parents[1]


def case_path(name: str) -> Path:
    """The source folder ``name`` in ``PRIMUS_CASES`` (default: ``../shared/cases``)."""
    folder = Path(os.environ.get("PRIMUS_CASES", ROOT.parent / "shared" / "cases"))
    require(folder.is_dir(), f"no folder of cases at {folder}; set PRIMUS_CASES")
    return folder / name


def known_motion() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """From times (n,) in s to acceleration and rotation (n, 3) that an ideal sensor measures."""
    spec = spec_from_file_location("truth", case_path("truth.py"))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.motion


def error_of(
    imu: np.ndarray, start_s: float, *, rate_hz: float = 50.0, motion_late_s: float = 0.0
) -> float:
    """Largest RMS error of a window ``(C, T)`` over the motion's deviation, of its channels.

    0 is perfect, about 1.4 is unrelated. motion_late_s: how much later than the window's own times
    the motion was (behind a clock that was set back).
    """
    time_s = start_s + np.arange(imu.shape[1]) / rate_hz + motion_late_s
    ideal = np.concatenate(known_motion()(time_s), axis=1).T[: len(imu)]
    return float((np.sqrt(((imu - ideal) ** 2).mean(axis=1)) / ideal.std(axis=1)).max())
