"""The ground with shadows, and the sky, computed by rays instead of the renderer.

TinyRenderer takes four times as long for a textured ground plane as for everything else in the
picture, and its textures flicker at a distance. A plane needs no renderer: the ray of each pixel is
intersected with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from shards.demo.camera import Camera
from shards.demo.scene import Scene

HAZE_M = 14.0  # distance over which the ground fades into the horizon
SHADOW = 0.55  # share of the light that a shadow removes

Capsule = tuple[np.ndarray, np.ndarray, float]  # its two ends (3,) and its radius, m

_NOISE_GRID = np.random.Generator(np.random.Philox(0)).random((64, 64))


def paint_background(
    scene: Scene, camera: Camera, pixels: int, bodies: Sequence[Capsule]
) -> np.ndarray:
    """Picture ``(pixels, pixels, 3)`` in 0..1 of ground and sky, with the shadows of ``bodies``."""
    rays = camera.rays(pixels)
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    sky = np.array(scene.sky)
    horizon = 0.5 * sky + 0.45
    height = np.clip(rays[..., 2:], 0, 1)
    picture = horizon + (sky - horizon) * np.sqrt(height)
    down = rays[..., 2] < -1e-3
    distance = camera.eye[2] / -rays[down][:, 2]
    points = camera.eye[:2] + distance[:, None] * rays[down][:, :2]
    colour = _PATTERNS[scene.ground](points) * np.array(scene.tint)
    colour = colour * (1 - SHADOW * _shadow(points, np.array(scene.sun), bodies))[:, None]
    clear = np.exp(-distance / HAZE_M)[:, None]
    picture[down] = clear * colour + (1 - clear) * horizon
    return np.clip(picture, 0, 1)


def _shadow(points: np.ndarray, sun: np.ndarray, bodies: Sequence[Capsule]) -> np.ndarray:
    """Share of light that bodies keep from ground ``points (n, 2)``, 0 to 1, with soft edges."""
    # Half of a picture's time is spent here. Separate x and y in float32 are ten times as fast.
    x, y = points.T.astype(np.float32)
    nearest2 = np.full(len(points), np.inf, dtype=np.float32)
    for start, end, radius in bodies:
        a, b = (tip[:2] - sun[:2] * tip[2] / sun[2] for tip in (start, end))
        (ax, ay), (bx, by) = a.tolist(), (b - a).tolist()
        px, py = x - ax, y - ay
        along = np.clip((px * bx + py * by) / max(bx * bx + by * by, 1e-9), 0, 1)
        px -= along * bx
        py -= along * by
        np.minimum(nearest2, (px * px + py * py) / radius**2, out=nearest2)
    return np.clip(1.5 - np.sqrt(nearest2), 0, 1)


def _noise(points: np.ndarray, scale_m: float) -> np.ndarray:
    """Smooth noise in 0..1 with features of about ``scale_m``: a random grid, interpolated."""
    grid = np.floor(points / scale_m).astype(int)
    inner = points / scale_m - grid
    x, y = (inner * inner * (3 - 2 * inner)).T
    i, j = grid.T % len(_NOISE_GRID)
    i1, j1 = (i + 1) % len(_NOISE_GRID), (j + 1) % len(_NOISE_GRID)
    low = _NOISE_GRID[i, j] * (1 - x) + _NOISE_GRID[i1, j] * x
    high = _NOISE_GRID[i, j1] * (1 - x) + _NOISE_GRID[i1, j1] * x
    return low * (1 - y) + high * y


def _tiles(points: np.ndarray) -> np.ndarray:
    cell = np.floor(points / 0.6).astype(int)
    joint = (np.abs(points / 0.6 - cell - 0.5) > 0.475).any(axis=1)
    shade = 0.62 + 0.14 * (cell.sum(axis=1) % 2) + 0.06 * _noise(points, 0.3)
    return np.where(joint, 0.4, shade)[:, None] * [1.0, 0.97, 0.92]


def _planks(points: np.ndarray) -> np.ndarray:
    row = np.floor(points[:, 1] / 0.18)
    shifted = np.stack([points[:, 0] + 1.37 * row, row], axis=1)
    board = np.floor(shifted[:, 0] / 1.4)
    tone = _noise(np.stack([board * 3.1, row * 2.3], axis=1), 1.0)
    grain = _noise(points * [0.25, 3.0], 0.12)
    joint = np.abs(points[:, 1] / 0.18 - row - 0.5) > 0.47
    shade = np.where(joint, 0.45, 0.75 + 0.25 * tone + 0.15 * (grain - 0.5))
    return shade[:, None] * [0.74, 0.52, 0.33]


def _grass(points: np.ndarray) -> np.ndarray:
    shade = 0.55 + 0.35 * _noise(points, 0.7) + 0.35 * (_noise(points, 0.06) - 0.3)
    return shade[:, None] * [0.42, 0.66, 0.28]


def _concrete(points: np.ndarray) -> np.ndarray:
    slab = (np.abs(points / 2.5 - np.floor(points / 2.5) - 0.5) > 0.492).any(axis=1)
    shade = 0.5 + 0.15 * _noise(points, 0.9) + 0.1 * _noise(points, 0.05)
    return np.where(slab, 0.35, shade)[:, None] * [1.0, 1.0, 1.02]


_PATTERNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tiles": _tiles,
    "planks": _planks,
    "grass": _grass,
    "concrete": _concrete,
}
