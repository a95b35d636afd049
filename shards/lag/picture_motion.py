"""Motion of a video's whole picture from one frame to the next, for any scene.

motion = picture_motion(frames.pictures(range(600), short_side=SHORT_SIDE))
    # (599, 3): to the right, down, and clockwise about the middle; NaN where too little was tracked

Corners are tracked by pyramidal Lucas-Kanade optical flow from one frame to the next, and back
again. Those that do not return to where they began are left out. The motion of the picture is the
median over the others. This is the Median-Flow tracker with its forward-backward error (Kalal,
Mikolajczyk and Matas, ICPR 2010) on the whole picture. Medians ignore hands and passers-by that
cover less than half of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

SHORT_SIDE = 120  # pixels: enough for the motion of the whole picture, and fast

_CORNERS = 200
_SPACING = 7  # pixels between corners, so that they spread over the picture
_WINDOW = (15, 15)
_LEVELS = 3  # of the pyramid: tracks up to about a sixth of the short side in a frame
_RETURN_ERROR = 1.0  # pixels by which a point tracked there and back may miss where it began
_FEWEST_POINTS = 12  # for a motion to be measured
_ITERATIONS = 3  # of shift and turn, each estimated after the other was subtracted


def picture_motion(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Motion of what is seen between each picture and the next, float64 ``(pictures - 1, 3)``.

    In pixels: to the right, down, and clockwise, as the motion of a point half the short side from
    the middle. Pictures are uint8 RGB of one size, best with ``SHORT_SIDE``; memory holds two. NaN
    where less than a dozen corners could be tracked. The same input gives the same bytes.
    """
    motion = []
    with _one_thread():
        before: np.ndarray | None = None
        for picture in pictures:
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            if before is not None:
                motion.append(_motion(before, grey))
            before = grey
    return np.array(motion, np.float64).reshape(-1, 3)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenCV use one thread: workers use all cores already, and more threads would compete."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _motion(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    points, moved = _follow(before, after)
    if len(points) < _FEWEST_POINTS:
        return np.nan, np.nan, np.nan
    shifts = moved - points
    height, width = before.shape
    arm = points - ((width - 1) / 2, (height - 1) / 2)
    across = arm[:, ::-1] * (-1, 1)  # shift of each point by a clockwise turn of 1 rad
    shift, turn = np.zeros(2), 0.0
    for _ in range(_ITERATIONS):
        shift = np.median(shifts - turn * across, axis=0)
        turns = ((shifts - shift) * across).sum(axis=1) / np.square(arm).sum(axis=1).clip(1)
        turn = float(np.median(turns))
    return float(shift[0]), float(shift[1]), turn * min(height, width) / 2


def _follow(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions ``(n, 2)`` of the tracked corners in one picture and in the next."""
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, _SPACING)
    if corners is None:
        return np.empty((0, 2)), np.empty((0, 2))
    points = corners.reshape(-1, 2)
    moved, there = _flow(before, after, points)
    back, here = _flow(after, before, moved)
    kept = there & here & (np.abs(back - points).max(axis=1) <= _RETURN_ERROR)
    return points[kept].astype(np.float64), moved[kept].astype(np.float64)


def _flow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Positions of ``points (n, 2)`` in the picture after, and whether they were found."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, np.empty_like(points), winSize=_WINDOW, maxLevel=_LEVELS
    )
    return moved, found.ravel() == 1
