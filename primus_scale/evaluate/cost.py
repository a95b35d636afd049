"""What the figures of a few-shot report cost, in seconds, as far as the results say.

The field ``cost`` of a run has ``pretraining_s``, None or absent where it is not known, and
``fitting_s`` {k: {arm: seconds or None}} of choosing a setting and of all draws. Features are
computed when they are first needed, and what they took is in the k and the arm that needed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def pretraining_seconds(results: Mapping[str, Any]) -> float | None:
    """The mean over runs of what pretraining took; None where no run says."""
    found = [run.get("cost", {}).get("pretraining_s") for run in results["runs"]]
    known = [seconds for seconds in found if seconds is not None]
    return float(np.mean(known)) if known else None


def fitting_seconds(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By k and arm the mean over the runs that say what the arm took."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in results["runs"]:
        for k, row in run.get("cost", {}).get("fitting_s", {}).items():
            for arm, seconds in row.items():
                if seconds is not None:
                    found.setdefault(k, {}).setdefault(arm, []).append(seconds)
    return {
        k: {arm: float(np.mean(of_runs)) for arm, of_runs in row.items()}
        for k, row in found.items()
    }


def total_fitting_seconds(results: Mapping[str, Any]) -> dict[str, float]:
    """By arm what it took for every k together; without arms for which that is not known."""
    fitting, total = fitting_seconds(results), {}
    for arm in {arm for row in results["few_shot"].values() for arm in row}:
        columns = [k for k, row in results["few_shot"].items() if arm in row]
        if all(arm in fitting.get(k, {}) for k in columns):
            total[arm] = sum(fitting[k][arm] for k in columns)
    return total


def format_duration(seconds: float) -> str:
    """``0.42 s``, ``12 s``, ``3.4 min`` or ``2.1 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 0.01 else "less than 0.01 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
