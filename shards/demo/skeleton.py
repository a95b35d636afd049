"""The humanoid of ``pybullet_data``: its segments, and where they are in a given pose.

The motion clips were made for this model (Peng et al., "DeepMimic", ACM TOG 2018). Its own frame
has x forward, y up, z to the right. In the zero pose all segment frames are parallel to it.
"""

from __future__ import annotations

import functools
import importlib.util
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

# Joints in the order of a clip's columns. Knees and elbows are hinges about z, the others balls.
JOINTS = (
    "root",
    "chest",
    "neck",
    "right_hip",
    "right_knee",
    "right_ankle",
    "right_shoulder",
    "right_elbow",
    "left_hip",
    "left_knee",
    "left_ankle",
    "left_shoulder",
    "left_elbow",
)
HINGES = frozenset({"right_knee", "right_elbow", "left_knee", "left_elbow"})

_METRES_PER_UNIT = 0.25  # the model's file is four times as large as a person
_TO_Z_UP = Rotation.from_euler("x", 90, degrees=True).as_matrix()  # from the model's frame


@dataclass(frozen=True)
class BodySegment:
    """A rigid segment of the body; the origin of its frame is the joint to its parent.

    offset: that joint in the parent's frame, m. centre, turn: position (m) and rotation matrix of
    the shape in the segment's own frame. size: radius; radius and length; or the three edges, m.
    """

    name: str
    parent: str | None
    offset: np.ndarray
    shape: Literal["sphere", "capsule", "box"]
    size: tuple[float, ...]
    centre: np.ndarray
    turn: np.ndarray


@dataclass(frozen=True)
class Pose:
    """Where each segment is at one moment: position ``(3,)``, m, and rotation ``(3, 3)``."""

    position: dict[str, np.ndarray]
    rotation: dict[str, np.ndarray]


@dataclass(frozen=True)
class BodyMotion:
    """Where each segment is at each moment, in a world with z up.

    rate_hz: frames a second. position: ``(n, 3)``, m, by segment name. rotation: ``(n, 3, 3)``
    from the segment's frame to the world, by segment name.
    """

    rate_hz: float
    position: dict[str, np.ndarray]
    rotation: dict[str, np.ndarray]

    def pose_at(self, time_s: float) -> Pose:
        """The pose at ``time_s`` after the first frame."""
        frame = round(time_s * self.rate_hz)
        return Pose(
            {name: values[frame] for name, values in self.position.items()},
            {name: values[frame] for name, values in self.rotation.items()},
        )


def data_path(name: str) -> Path:
    """A file or folder of ``pybullet_data``; FileNotFoundError where that is not installed."""
    spec = importlib.util.find_spec("pybullet_data")  # importing it would print its path
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package pybullet_data is not installed; pip install '.[demo]'")
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; reinstall pybullet with pip install '.[demo]'")
    return path


@functools.cache
def segments() -> tuple[BodySegment, ...]:
    """All segments of the humanoid, each after its parent."""
    text = data_path("humanoid/humanoid.urdf").read_text()
    robot = ET.fromstring(text.rstrip("\0"))  # the file ends in a zero byte
    joints = {_link(joint, "child"): joint for joint in robot.iter("joint")}
    return tuple(
        _read_segment(link, joints.get(link.attrib["name"]))
        for link in robot.iter("link")
        if link.find("collision") is not None
    )


def forward_kinematics(
    root: np.ndarray, rotations: np.ndarray, rate_hz: float, size: float = 1.0
) -> BodyMotion:
    """Segment frames of a moving body.

    root ``(n, 3)`` m and rotations ``(n, len(JOINTS), 3, 3)`` (joint frames in their parents'; the
    first is the root's) are in the model's y-up frame, as in clips, at size 1. ``size`` scales all
    lengths, also the path of the root.
    """
    position = {"root": size * root @ _TO_Z_UP.T}
    rotation = {"root": _TO_Z_UP @ rotations[:, 0]}
    for segment in segments():
        if segment.parent is None:
            continue
        parent = rotation[segment.parent]
        position[segment.name] = position[segment.parent] + size * parent @ segment.offset
        if segment.name in JOINTS:
            rotation[segment.name] = parent @ rotations[:, JOINTS.index(segment.name)]
        else:  # wrists are fixed to their forearms
            rotation[segment.name] = parent
    return BodyMotion(rate_hz, position, rotation)


def _read_segment(link: ET.Element, joint: ET.Element | None) -> BodySegment:
    parent = _link(joint, "parent") if joint is not None else None
    is_root = joint is None or joint.attrib["name"] == "root"
    collision = _child(link, "collision")
    shape = _child(collision, "geometry")[0]
    units = {
        "sphere": [shape.get("radius", "")],
        "capsule": [shape.get("radius", ""), shape.get("length", "")],
        "box": shape.get("size", "").split(),
    }
    kind: Literal["sphere", "capsule", "box"] = shape.tag  # type: ignore[assignment]
    origin = _child(collision, "origin")
    return BodySegment(
        name=link.attrib["name"],
        parent=None if is_root else parent,
        offset=np.zeros(3) if joint is None else _metres(_child(joint, "origin").attrib["xyz"]),
        shape=kind,
        size=tuple(float(value) * _METRES_PER_UNIT for value in units[kind]),
        centre=_metres(origin.attrib["xyz"]),
        turn=Rotation.from_euler("xyz", _numbers(origin.attrib["rpy"])).as_matrix(),
    )


def _child(element: ET.Element, tag: str) -> ET.Element:
    child = element.find(tag)
    assert child is not None, f"<{element.tag}> of the humanoid has no <{tag}>"
    return child


def _link(joint: ET.Element, end: str) -> str:
    return _child(joint, end).attrib["link"]


def _numbers(text: str) -> Sequence[float]:
    return [float(part) for part in text.split()]


def _metres(text: str) -> np.ndarray:
    return np.array(_numbers(text)) * _METRES_PER_UNIT
