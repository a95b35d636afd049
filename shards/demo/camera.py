"""The cameras of the pictures: at the wearer's eyes, or held by a person next to the wearer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from shards.demo.skeleton import Pose


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: ``eye`` (m, z up), unit vectors ``forward`` and ``up``, field of view."""

    eye: np.ndarray
    forward: np.ndarray
    up: np.ndarray
    fov_deg: float

    def rays(self, pixels: int) -> np.ndarray:
        """Directions through the centres of ``pixels`` x ``pixels`` pixels, rows from the top."""
        right = np.cross(self.forward, self.up)
        up = np.cross(right, self.forward)
        steps = (np.arange(pixels) + 0.5) / pixels * 2 - 1
        half = np.tan(np.deg2rad(self.fov_deg) / 2)
        return self.forward + half * steps[None, :, None] * right - half * steps[:, None, None] * up


def head_camera(pose: Pose, size: float, rng: np.random.Generator) -> Camera:
    """A camera in glasses. It looks ahead and down, so that hands and ground are in the picture."""
    head = pose.rotation["neck"]
    eye = pose.position["neck"] + size * head @ np.array([0.11, 0.19, 0.0])
    # In the head's frame x is forward and z to the right; a negative turn about z looks down.
    tilt = Rotation.from_euler("z", -rng.uniform(20, 40), degrees=True).as_matrix()
    forward, up = head @ tilt[:, 0], head @ tilt[:, 1]
    return Camera(_above_ground(eye), forward, up, fov_deg=rng.uniform(95, 110))


def follow_camera(pose: Pose, size: float, azimuth: float, rng: np.random.Generator) -> Camera:
    """A camera at eye height or lower, at ``azimuth`` (rad) from the body, directed at it."""
    target = pose.position["root"] + [0.0, 0.0, 0.08 * size]
    distance = rng.uniform(2.3, 3.2)
    azimuth = azimuth + rng.uniform(-0.3, 0.3)
    offset = distance * np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    offset[2] = rng.uniform(0.1, 1.0)
    eye = _above_ground(target + offset)
    forward = (target - eye) / np.linalg.norm(target - eye)
    return Camera(eye, forward, _upright(forward), fov_deg=rng.uniform(42, 50))


def _upright(forward: np.ndarray) -> np.ndarray:
    """The unit vector nearest to the vertical that is orthogonal to ``forward``."""
    up = np.array([0.0, 0.0, 1.0]) - forward[2] * forward
    return up / np.linalg.norm(up)


def _above_ground(eye: np.ndarray) -> np.ndarray:
    return np.array([eye[0], eye[1], max(eye[2], 0.08)])
