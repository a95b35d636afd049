"""Motion of the picture against pictures that were moved by a known amount."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shards.lag.picture_motion import picture_motion
from tests.turning_camera import painted_sphere

HEIGHT, WIDTH = 120, 160
SCENE = painted_sphere()[100:400, 200:600]


def moved(right: float, down: float, degrees: float = 0.0) -> np.ndarray:
    """The scene's middle, shifted, then turned clockwise about the middle of the picture."""
    turn, middle = np.radians(degrees), np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    offset = middle + matrix @ (np.array([right, down]) - np.array([199.5, 149.5]))
    affine = np.hstack([matrix, offset[:, None]])
    grey = cv2.warpAffine(SCENE, affine, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("right", "down"), [(0.0, 0.0), (3.25, 0.0), (0.0, -2.5), (-0.4, 0.3), (16.0, -12.0)]
)
def test_shift(right: float, down: float) -> None:
    motion = picture_motion([moved(0, 0), moved(right, down)])
    assert motion.shape == (1, 3)
    assert motion[0] == pytest.approx([right, down, 0], abs=0.05)


@pytest.mark.parametrize("degrees", [1.5, -4.0])
def test_roll(degrees: float) -> None:
    motion = picture_motion([moved(0, 0), moved(0, 0, degrees)])
    assert motion[0] == pytest.approx([0, 0, HEIGHT / 2 * np.radians(degrees)], abs=0.05)


def test_a_hand_before_the_camera_does_not_count() -> None:
    pictures = []
    for number in range(3):
        picture = moved(2.0 * number, 1.0 * number)
        hand = SCENE[10:100, 20 + 6 * number : 80 + 6 * number]  # a quarter of the picture
        picture[30:, 100:] = hand[:, :, None]
        pictures.append(picture)
    motion = picture_motion(pictures)
    np.testing.assert_allclose(motion[:, :2], [[2, 1], [2, 1]], atol=0.1)


def test_what_cannot_be_followed_is_nan() -> None:
    flat = np.full((HEIGHT, WIDTH, 3), 99, np.uint8)
    elsewhere = np.repeat(painted_sphere(seed=9)[:HEIGHT, :WIDTH, None], 3, axis=2)
    motion = picture_motion([moved(0, 0), moved(1, 0), flat, flat, elsewhere])
    assert motion[0] == pytest.approx([1, 0, 0], abs=0.05)
    assert np.isnan(motion[1:]).all()
    assert picture_motion([]).shape == picture_motion([flat]).shape == (0, 3)


def test_the_threads_of_others_stay_as_they_are() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        picture_motion([moved(0, 0), moved(1, 0)])
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
