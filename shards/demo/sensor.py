"""Readings of an inertial sensor on the body: exact physics, then the errors of a phone's chip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from shards import placements
from shards.demo.skeleton import BodyMotion

GRAVITY = np.array([0.0, 0.0, -9.80665])  # m/s2, in a world with z up

# Standard deviations between chips and within a chip's signal, of the order of data sheets of
# phones (Bosch BMI160, InvenSense ICM-20602: 10 to 40 mg and 0.5 to 3 deg/s of bias, 100 to 200
# ug/rtHz and 0.005 to 0.01 deg/s/rtHz of noise, 1 % of sensitivity), over the 25 Hz that 50 Hz can
# hold.
ACCELEROMETER_BIAS_SD = 0.1  # m/s2
ACCELEROMETER_NOISE_SD = 0.02  # m/s2
GYROSCOPE_BIAS_SD = 0.01  # rad/s
GYROSCOPE_NOISE_SD = 0.002  # rad/s
SENSITIVITY_SD = 0.01
ACCELEROMETER_RANGE = 16 * 9.80665  # m/s2, beyond which readings saturate
GYROSCOPE_RANGE = np.deg2rad(2000)  # rad/s
MOUNTING_MAX_DEG = 30.0  # largest deviation of a worn sensor from its nominal orientation


@dataclass(frozen=True)
class Placement:
    """Where a sensor is worn: a segment of the body, and the offset in the segment's frame (m).

    name: one of ``shards.placements``. device: name of the sensor there.
    """

    name: str
    device: str
    segment: str
    offset: tuple[float, float, float]


PLACEMENTS = (
    Placement(placements.WAIST, "synthetic-pelvis", "root", (0.09, 0.07, 0.0)),
    Placement(placements.CHEST, "synthetic-chest", "chest", (0.11, 0.14, 0.0)),
    Placement(placements.HEAD, "synthetic-head", "neck", (0.10, 0.18, 0.05)),
    Placement(placements.LEFT_WRIST, "synthetic-left_wrist", "left_wrist", (0.0, 0.0, -0.03)),
    Placement(placements.RIGHT_WRIST, "synthetic-right_wrist", "right_wrist", (0.0, 0.0, 0.03)),
    Placement(placements.LEFT_THIGH, "synthetic-left_thigh", "left_hip", (0.05, -0.20, -0.03)),
    Placement(placements.RIGHT_THIGH, "synthetic-right_thigh", "right_hip", (0.05, -0.20, 0.03)),
    Placement(placements.LEFT_ANKLE, "synthetic-left_ankle", "left_knee", (0.0, -0.36, -0.05)),
    Placement(placements.RIGHT_ANKLE, "synthetic-right_ankle", "right_knee", (0.0, -0.36, 0.05)),
)

# Sensor axes in a segment's frame (x forward, y up, z right): x up along the body, y to the right,
# z forward. UCI HAPT's phone was worn at the waist with its x axis up, too.
NOMINAL_MOUNTING = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def ideal_imu(position: np.ndarray, rotation: np.ndarray, rate_hz: float) -> np.ndarray:
    """Readings of a perfect sensor that moves along a path.

    position ``(n, 3)`` m in a world with z up; rotation ``(n, 3, 3)`` from the sensor's frame to
    the world. Returns ``(6, n)``: specific force R^T (a - g), m/s2, and angular velocity in the
    sensor's frame, rad/s, both from central differences; the first and last sample repeat their
    neighbours.
    """
    if len(position) < 3:
        raise ValueError(f"a path of {len(position)} samples has no acceleration; give 3 or more")
    acceleration = (position[2:] - 2 * position[1:-1] + position[:-2]) * rate_hz**2
    force = np.einsum("nji,nj->ni", rotation[1:-1], acceleration - GRAVITY)
    # R(t-1)^T R(t+1) is the turn over two steps, seen from the sensor.
    turn = Rotation.from_matrix(rotation[:-2].transpose(0, 2, 1) @ rotation[2:])
    angular_velocity = turn.as_rotvec() * (rate_hz / 2)
    inner = np.concatenate([force, angular_velocity], axis=1).T
    return np.pad(inner, ((0, 0), (1, 1)), mode="edge")


def worn_imu(
    motion: BodyMotion, placement: Placement, size: float, mounting: np.ndarray
) -> np.ndarray:
    """Ideal readings ``(6, n)`` at a placement on a body of ``size``.

    mounting ``(3, 3)``: rotation from the sensor's frame to its segment's.
    """
    rotation = motion.rotation[placement.segment]
    position = motion.position[placement.segment] + size * rotation @ np.array(placement.offset)
    return ideal_imu(position, rotation @ mounting, motion.rate_hz)


def random_mounting(rng: np.random.Generator) -> np.ndarray:
    """The nominal mounting, turned by up to MOUNTING_MAX_DEG about a random axis."""
    axis = rng.normal(size=3)
    angle = np.deg2rad(rng.uniform(0, MOUNTING_MAX_DEG))
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix() @ NOMINAL_MOUNTING


def add_sensor_errors(imu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``imu (6, n)`` with the errors of one chip.

    Errors of sensitivity and biases are constant over the signal; then white noise and saturation.
    """
    bias_sd = _by_channel(ACCELEROMETER_BIAS_SD, GYROSCOPE_BIAS_SD)
    noise_sd = _by_channel(ACCELEROMETER_NOISE_SD, GYROSCOPE_NOISE_SD)
    limit = _by_channel(ACCELEROMETER_RANGE, GYROSCOPE_RANGE)
    sensitivity = 1 + SENSITIVITY_SD * rng.normal(size=(6, 1))
    bias = bias_sd * rng.normal(size=(6, 1))
    noisy = sensitivity * imu + bias + noise_sd * rng.normal(size=imu.shape)
    return np.clip(noisy, -limit, limit)


def _by_channel(accelerometer: float, gyroscope: float) -> np.ndarray:
    """A value for each of the six channels ``(6, 1)``."""
    return np.repeat([accelerometer, gyroscope], 3)[:, None]
