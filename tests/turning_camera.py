"""A pinhole camera that turns in the middle of a painted sphere, with a gyroscope, for tests.

motion = wander(seed=1)
frames = TurningCamera(motion, times_s, lag_s=0.3)  # shows at 1.3 s what happened at 1.0 s
device = gyroscope_of(motion, seconds=12.0, mounting=Rotation.random(random_state=5))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from shards.recording import ACCELEROMETER, GYROSCOPE, Device
from tests.recording_factory import acceleration, make_sensor, sample_times

Motion = Callable[[np.ndarray], Rotation]
"""From times (n,) to the camera's orientations against the world (x right, y down, z ahead)."""


def wander(
    seed: int, *, rate: float = 0.5, lowest_hz: float = 0.1, highest_hz: float = 2.0
) -> Motion:
    """Looking around without a period; rate: about the RMS about each axis, in rad/s."""
    rng = np.random.default_rng(seed)
    turn = 2 * np.pi * rng.uniform(lowest_hz, highest_hz, (3, 40))
    phase = rng.uniform(0, 2 * np.pi, turn.shape)

    def orientation(time_s: np.ndarray) -> Rotation:
        waves = np.sin(time_s[:, None, None] * turn + phase) / turn
        return Rotation.from_euler("YXZ", rate * np.sqrt(2 / 40) * waves.sum(axis=2))

    return orientation


def sway(period_s: float, *, rate: float = 0.5) -> Motion:
    """The same again in each period, as in walking; the second axis twice as often."""
    turn = 2 * np.pi / period_s * np.array([1, 2, 1])

    def orientation(time_s: np.ndarray) -> Rotation:
        return Rotation.from_euler("YXZ", rate / turn * np.sin(time_s[:, None] * turn + [0, 1, 2]))

    return orientation


def rest(time_s: np.ndarray) -> Rotation:
    """No motion."""
    return Rotation.identity(len(time_s))


def angular_velocity(motion: Motion, time_s: np.ndarray) -> np.ndarray:
    """In the camera's axes, rad/s ``(n, 3)``."""
    step_s = 1e-4
    turned = motion(time_s - step_s).inv() * motion(time_s + step_s)
    return turned.as_rotvec() / (2 * step_s)


def gyroscope_of(
    motion: Motion,
    seconds: float,
    *,
    mounting: Rotation | None = None,
    noise: float = 0.005,
    rate_hz: float = 100.0,
) -> Device:
    """An IMU on the camera. mounting: from the camera's axes to its own. noise: rad/s."""
    time_s = sample_times(rate_hz, seconds)
    rates = (mounting or Rotation.identity()).apply(angular_velocity(motion, time_s))
    rates += np.random.default_rng(0).normal(0, noise, rates.shape)
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", time_s, acceleration(time_s)),
        make_sensor(GYROSCOPE, "rad/s", time_s, rates),
    )
    return Device("imu", "head", sensors, nominal_rate_hz=rate_hz)


@functools.cache
def painted_sphere(seed: int = 0) -> np.ndarray:
    """Blotches of some degrees by longitude and latitude, uint8 ``(512, 1024)``."""
    noise = np.random.default_rng(seed).normal(size=(512, 1024))
    smooth = gaussian_filter(noise, 4, mode="wrap")
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class TurningCamera:
    """Frames at ``stamps_s`` that show the motion of ``lag_s`` earlier; 80 degrees wide, 4:3."""

    motion: Motion
    stamps_s: np.ndarray
    lag_s: float = 0.0
    noise: float = 2.0  # of pixels, of 255
    scene: np.ndarray | None = None

    def times_s(self) -> np.ndarray:
        return self.stamps_s

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        height = short_side or 120
        width = height * 4 // 3
        focal = width / 2 / np.tan(np.radians(40))
        x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
        rays = np.stack([x / focal, y / focal, np.ones_like(x)], axis=-1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        scene = painted_sphere() if self.scene is None else self.scene
        rows, columns = scene.shape
        for number in numbers:
            orientation = self.motion(self.stamps_s[[number]] - self.lag_s).as_matrix()[0]
            right, down, ahead = np.moveaxis(rays @ orientation.T, -1, 0)
            column = (np.arctan2(right, ahead) / (2 * np.pi) + 0.5) * columns
            row = (np.arcsin(down.clip(-1, 1)) / np.pi + 0.5) * rows
            picture = cv2.remap(
                scene,
                column.astype(np.float32),
                row.astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
            noise = np.random.default_rng(number).normal(0, self.noise, picture.shape)
            grey = np.clip(picture + noise, 0, 255).astype(np.uint8)
            yield np.repeat(grey[:, :, None], 3, axis=2)
