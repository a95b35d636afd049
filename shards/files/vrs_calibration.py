"""What the calibration in a VRS file says of an IMU: where its axes point, and its true values.

Source: the documentation of Project Aria (facebookresearch.github.io/projectaria_tools), pages "3D
Coordinate Frame Conventions" and "Sensor Measurement Models".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

# In the central pupil frame x points to the left, y up and z forward: each axis, and its opposite.
_DIRECTIONS = (("left", "right"), ("up", "down"), ("forward", "backward"))
_LEAST_SHARE = 0.383  # of a unit vector, to be named: the sine of 22.5 degrees


def axes_in_words(turn: np.ndarray) -> str:
    """Where the columns of a rotation ``(3, 3)`` into the central pupil frame point.

    For example "x left, y up and forward, z backward".
    """
    directions = []
    for name, axis in zip("xyz", turn.T, strict=True):
        parts = [
            _DIRECTIONS[place][int(axis[place] < 0)]
            for place in np.argsort(-np.abs(axis)).tolist()
            if abs(axis[place]) >= _LEAST_SHARE
        ]
        directions.append(f"{name} {' and '.join(parts)}")
    return ", ".join(directions)


def rectification(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The function from read-outs ``(n, 3)`` to rectified values: inverse(matrix) (raw - bias).

    model: of an accelerometer or gyroscope, as projectaria-tools has it. LinAlgError where its
    matrix has no inverse.
    """
    return partial(_rectify, np.linalg.inv(model.get_rectification()), model.get_bias())


def _rectify(inverse: np.ndarray, bias: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (values - bias) @ inverse.T
