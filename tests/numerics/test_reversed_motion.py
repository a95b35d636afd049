"""What sensors measure of a motion in reverse, by differentiating it, against ``time_flip``."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation as Turn

from primus_scale.augment import build_augment, step_generator
from primus_scale.config.augment import TimeFlip

RATE_HZ, SAMPLES, STEP_S = 50.0, 250, 1e-4
GRAVITY = np.array([0.0, 0.0, -9.81])


def attitude(time_s: float) -> Turn:
    """From the device's axes to the world's: it turns about two axes that move."""
    about_z = Turn.from_rotvec([0.0, 0.0, 0.4 * time_s + 0.8 * math.sin(2.1 * time_s)])
    return about_z * Turn.from_rotvec([0.7 * math.sin(1.3 * time_s + 0.4), 0.2 * time_s, 0.0])


def position(time_s: float) -> np.ndarray:
    """Where the device is, in metres."""
    return np.array([math.sin(1.7 * time_s), 0.3 * time_s**2, 0.2 * math.cos(2.9 * time_s)])


def measure(attitude, position, time_s: float) -> np.ndarray:
    """Accelerometer and gyroscope, ``(6,)``, by central differences."""
    before, after = attitude(time_s - STEP_S), attitude(time_s + STEP_S)
    angular_velocity = (before.inv() * after).as_rotvec() / (2 * STEP_S)
    places = [position(time_s + shift) for shift in (-STEP_S, 0.0, STEP_S)]
    acceleration = (places[0] - 2 * places[1] + places[2]) / STEP_S**2
    force = attitude(time_s).inv().apply(acceleration - GRAVITY)
    return np.concatenate([force, angular_velocity])


def test_flip_is_the_motion_in_reverse() -> None:
    end_s = (SAMPLES - 1) / RATE_HZ
    times_s = np.arange(SAMPLES) / RATE_HZ
    forwards = np.stack([measure(attitude, position, t) for t in times_s], axis=1)
    backwards = np.stack(
        [measure(lambda t: attitude(end_s - t), lambda t: position(end_s - t), t) for t in times_s],
        axis=1,
    )
    assert np.abs(forwards[3:]).max() > 1, "it hardly turns"
    imu = torch.from_numpy(forwards).float()[None]
    flip = build_augment((TimeFlip(p=1.0),))
    view = flip(imu, step_generator(0, 0, "cpu"), slice(0, 1), 1)[0]
    np.testing.assert_allclose(view.numpy(), backwards, atol=1e-4)
