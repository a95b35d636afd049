"""Motion-capture clips of ``pybullet_data``, performed by bodies of varied size, tempo and style.

A clip lasts one to four seconds. A performance repeats it for the requested time. Clips that loop
continue from their end; others are played forwards and backwards, with a rest at both ends.
Captured joint angles are splines at 16 to 60 frames a second, with spikes in their derivatives. So
a zero-phase low-pass filter is applied before the sensors differentiate them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import butter, sosfiltfilt
from scipy.spatial.transform import Rotation

from shards.demo.postures import POSTURES, posed_frames
from shards.demo.skeleton import HINGES, JOINTS, BodyMotion, data_path, forward_kinematics

STYLE_SD_DEG = 4.0  # of the constant turn by which a performer holds each joint differently
CUTOFF_HZ = 8.0  # above it the clips hold more spline noise than motion
MOTION_RATE_HZ = 200.0  # at which central differences are exact to 0.5 % at the cut-off

_HORIZONTAL = np.array([1.0, 0.0, 1.0])  # of the model's axes, of which y is up

TRAIN_CLIPS = (
    "backflip",
    "cartwheel",
    "crawl",
    "dance_a",
    "getup_facedown",
    "jump",
    "kick",
    "punch",
    "roll",
    "run",
    "spin",
    "walk",
    "walk_forward",
    "turn_left0",
    "turn_left1",
    "turn_right0",
)
STILL_CLIPS = tuple(POSTURES)  # posed, not captured; for training
VALIDATION_CLIPS = ("dance_b", "getup_faceup", "spinkick", "turn_right1")


@dataclass(frozen=True)
class Clip:
    """One captured motion in the model's y-up frame.

    time_s ``(n,)`` from 0; root ``(n, 3)`` m; quaternions ``(n, len(JOINTS), 4)``, xyzw, without
    changes of sign from frame to frame. loops: the motion of its start continues that of its end.
    """

    name: str
    loops: bool
    time_s: np.ndarray
    root: np.ndarray
    quaternions: np.ndarray


@functools.cache
def load_clip(name: str) -> Clip:
    """One of TRAIN_CLIPS, STILL_CLIPS and VALIDATION_CLIPS."""
    if name in STILL_CLIPS:
        return Clip(name, True, *posed_frames(name))
    folder = data_path("data/motions")
    walker = {path.stem.removeprefix("0"): path for path in (folder / "walker").glob("*.txt")}
    path = walker.get(name, folder / f"humanoid3d_{name}.txt")
    content = json.loads(path.read_text())
    frames = np.array(content["Frames"])
    columns = iter(frames[:, 4:].T)
    quaternions = np.stack([_joint_quaternions(joint, columns) for joint in JOINTS], axis=1)
    return Clip(
        name=name,
        loops=content["Loop"] == "wrap",
        time_s=np.concatenate([[0.0], np.cumsum(frames[:-1, 0])]),
        root=frames[:, 1:4],
        quaternions=_same_sign(quaternions),
    )


def perform(
    clip: Clip,
    duration_s: float,
    rng: np.random.Generator,
    *,
    tempo: float = 1.0,
    size: float = 1.0,
) -> BodyMotion:
    """A body that repeats ``clip`` for ``duration_s`` seconds from a random phase on.

    tempo: 1 is as captured, 2 twice as fast; each repetition deviates from it by some per cent.
    size: scale of the body. Joints are held differently each time (STYLE_SD_DEG). The result has
    MOTION_RATE_HZ and is low-passed at CUTOFF_HZ.
    """
    margin_s = 1.0  # cut off at both ends: edge effects of the filter
    clip = _restyled(clip, rng)
    if not clip.loops:
        clip = _there_and_back(clip, rest_s=rng.uniform(0.3, 1.0))
    phase_s = rng.uniform(0, clip.time_s[-1] / tempo)
    long = _repeat(clip, duration_s + 2 * margin_s + phase_s, tempo, rng)
    margin = round(margin_s * MOTION_RATE_HZ)
    samples = round(duration_s * MOTION_RATE_HZ) + 2 * margin
    time_s = phase_s + np.arange(samples) / MOTION_RATE_HZ
    root = _low_pass(_interpolate(long.time_s, long.root, time_s))
    quaternions = _low_pass(_interpolate(long.time_s, long.quaternions, time_s))
    inner = slice(margin, -margin)
    return forward_kinematics(
        root[inner], _matrices(quaternions[inner]), rate_hz=MOTION_RATE_HZ, size=size
    )


def _joint_quaternions(joint: str, columns: Iterator[np.ndarray]) -> np.ndarray:
    """Read a joint from the next columns: one angle of a hinge, or a quaternion wxyz."""
    if joint in HINGES:
        angle = next(columns)
        return Rotation.from_rotvec(angle[:, None] * [0.0, 0.0, 1.0]).as_quat()
    w, x, y, z = (next(columns) for _ in range(4))
    return np.stack([x, y, z, w], axis=1)


def _restyled(clip: Clip, rng: np.random.Generator) -> Clip:
    """The clip with a constant small turn added to every joint but the root."""
    quaternions = clip.quaternions.copy()
    for joint in range(1, len(JOINTS)):
        turn = Rotation.from_rotvec(STYLE_SD_DEG * rng.normal(size=3), degrees=True)
        quaternions[:, joint] = (Rotation.from_quat(quaternions[:, joint]) * turn).as_quat()
    return replace(clip, quaternions=_same_sign(quaternions))


def _there_and_back(clip: Clip, rest_s: float) -> Clip:
    """The clip forwards, a rest, the clip backwards, a rest: a loop that ends where it began."""
    end_s = float(clip.time_s[-1])
    back_s = end_s + rest_s + (end_s - clip.time_s[::-1])
    return replace(
        clip,
        loops=True,
        time_s=np.concatenate([clip.time_s, back_s, [back_s[-1] + rest_s]]),
        root=np.concatenate([clip.root, clip.root[::-1], clip.root[:1]]),
        quaternions=np.concatenate(
            [clip.quaternions, clip.quaternions[::-1], clip.quaternions[:1]]
        ),
    )


def _repeat(clip: Clip, duration_s: float, tempo: float, rng: np.random.Generator) -> Clip:
    """Repetitions of a looping clip, each from the position and heading where the last ended."""
    transition_s = _transition_s(clip)
    start_heading, end_heading = _heading(clip.quaternions[[0, -1], 0])
    velocity = _transition_velocity(clip)
    times, roots, quaternions = [], [], []
    time_s, heading, offset = 0.0, 0.0, np.zeros(3)
    while time_s < duration_s:
        pace = tempo * rng.uniform(0.95, 1.05)
        turn = Rotation.from_euler("y", heading)
        times.append(time_s + clip.time_s / pace)
        roots.append(turn.apply(clip.root) + offset)
        turned = clip.quaternions.copy()
        turned[:, 0] = (turn * Rotation.from_quat(turned[:, 0])).as_quat()
        quaternions.append(turned)
        time_s = float(times[-1][-1]) + transition_s / pace
        heading += end_heading - start_heading
        target = roots[-1][-1] + turn.apply(velocity) * transition_s
        offset = (target - Rotation.from_euler("y", heading).apply(clip.root[0])) * _HORIZONTAL
    return replace(
        clip,
        time_s=np.concatenate(times),
        root=np.concatenate(roots),
        quaternions=_same_sign(np.concatenate(quaternions)),
    )


def _transition_s(clip: Clip) -> float:
    """Time from the last pose of a repetition to the first of the next, at the clip's own speed."""
    joints = clip.quaternions[:, 1:]  # without the root: the next repetition begins with its turn
    speed = _angle(joints[1:], joints[:-1]).max(axis=1) / np.diff(clip.time_s)
    gap = _angle(joints[-1], joints[0]).max()
    return max(float(gap / np.quantile(speed, 0.8)), float(np.diff(clip.time_s).min()))


def _transition_velocity(clip: Clip) -> np.ndarray:
    """Mean of the root's horizontal velocities at the clip's two ends, m/s."""
    ends = [
        (clip.root[last] - clip.root[first]) / (clip.time_s[last] - clip.time_s[first])
        for first, last in ((0, 2), (-3, -1))
    ]
    return np.mean(ends, axis=0) * _HORIZONTAL


def _heading(quaternions: np.ndarray) -> np.ndarray:
    """Angle of the turn about the vertical (y) that rotations ``(n, 4)`` contain, rad."""
    return 2 * np.arctan2(quaternions[:, 1], quaternions[:, 3])


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between rotations ``(..., 4)``, rad."""
    return 2 * np.arccos(np.clip(np.abs((a * b).sum(axis=-1)), 0, 1))


def _same_sign(quaternions: np.ndarray) -> np.ndarray:
    """Normalised ``(n, J, 4)`` in which neighbours in time have the same sign of q and -q."""
    unit = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    agree = np.where((unit[1:] * unit[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    unit[1:] *= np.cumprod(agree, axis=0)[..., None]
    return unit


def _interpolate(time_s: np.ndarray, values: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis."""
    right = np.clip(np.searchsorted(time_s, at_s, side="right"), 1, len(time_s) - 1)
    left = right - 1
    weight = (at_s - time_s[left]) / (time_s[right] - time_s[left])
    weight = weight.reshape(-1, *[1] * (values.ndim - 1))
    return values[left] * (1 - weight) + values[right] * weight


def _low_pass(values: np.ndarray) -> np.ndarray:
    """Zero-phase Butterworth filter of fourth order in all."""
    sections = butter(2, CUTOFF_HZ, fs=MOTION_RATE_HZ, output="sos")
    return sosfiltfilt(sections, values, axis=0)


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices ``(n, J, 3, 3)`` of quaternions that need not be normalised."""
    flat = Rotation.from_quat(quaternions.reshape(-1, 4)).as_matrix()
    return flat.reshape(*quaternions.shape[:2], 3, 3)
