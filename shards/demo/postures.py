"""Still postures: standing, sitting and lying, posed by hand, since no clip has them.

Without them all synthetic people would move, and the real windows of still people would have no
counterpart among the synthetic ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from shards.demo.skeleton import JOINTS

SEAT_M = 0.42  # height of the stool that the sitting posture needs, for a body of size 1
SWAY_DEG = 1.5  # largest deviation of a joint from its posed angle, about each axis
_LOOP_S, _LOOP_RATE_HZ = 12.0, 10.0


@dataclass(frozen=True)
class Posture:
    """height_m of the root; its turn and those of joints, Euler angles in degrees about x, y, z.

    Frames are the model's (x forward, y up, z right): flexing a hip or an elbow is a positive turn
    about z, flexing a knee a negative one.
    """

    height_m: float
    root: tuple[float, float, float] = (0.0, 0.0, 0.0)
    joints: dict[str, tuple[float, float, float]] = field(default_factory=dict)


_ARMS_DOWN = {"right_shoulder": (-8.0, 0.0, 0.0), "left_shoulder": (8.0, 0.0, 0.0)}
_HANDS_ON_LAP = {
    "right_shoulder": (-5.0, 0.0, 25.0),
    "left_shoulder": (5.0, 0.0, 25.0),
    "right_elbow": (0.0, 0.0, 60.0),
    "left_elbow": (0.0, 0.0, 60.0),
}
_LEGS_ON_STOOL = {
    "right_hip": (0.0, 0.0, 75.0),
    "left_hip": (0.0, 0.0, 75.0),
    "right_knee": (0.0, 0.0, -85.0),
    "left_knee": (0.0, 0.0, -85.0),
}
POSTURES = {
    "stand": Posture(0.88, joints=_ARMS_DOWN),
    "sit": Posture(0.50, root=(0.0, 0.0, 10.0), joints=_HANDS_ON_LAP | _LEGS_ON_STOOL),
    "lie_on_back": Posture(0.11, root=(0.0, 0.0, 90.0), joints=_ARMS_DOWN),
    "lie_on_front": Posture(0.11, root=(0.0, 0.0, -90.0), joints=_ARMS_DOWN),
    "lie_on_side": Posture(
        0.15,
        root=(90.0, 0.0, 0.0),
        joints={"left_hip": (0.0, 0.0, 35.0), "left_knee": (0.0, 0.0, -50.0)} | _HANDS_ON_LAP,
    ),
}


def posed_frames(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A loop of a still body: time_s ``(n,)``, root ``(n, 3)``, quaternions ``(n, J, 4)``.

    Every joint sways slowly and differently; the last frame equals the first.
    """
    posture = POSTURES[name]
    time_s = np.arange(round(_LOOP_S * _LOOP_RATE_HZ) + 1) / _LOOP_RATE_HZ
    rng = np.random.Generator(np.random.Philox(sorted(POSTURES).index(name)))
    posed = [posture.root, *(posture.joints.get(joint, (0.0, 0.0, 0.0)) for joint in JOINTS[1:])]
    quaternions = np.stack(
        [
            (_sway(time_s, rng) * Rotation.from_euler("xyz", angles, degrees=True)).as_quat()
            for angles in posed
        ],
        axis=1,
    )
    return time_s, np.tile([0.0, posture.height_m, 0.0], (len(time_s), 1)), quaternions


def _sway(time_s: np.ndarray, rng: np.random.Generator) -> Rotation:
    """Small turns about all axes: sines of 0.1 to 0.4 Hz with whole periods in the loop."""
    cycles = rng.integers(1, 6, size=3)
    phase = rng.uniform(0, 2 * np.pi, size=3)
    angle = SWAY_DEG * np.sin(2 * np.pi * cycles * time_s[:, None] / _LOOP_S + phase)
    return Rotation.from_rotvec(angle, degrees=True)
