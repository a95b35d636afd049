"""Pictures of a body in a scene, with pybullet's software renderer: no GPU, no display."""

from __future__ import annotations

import importlib
import io
import os
import tempfile
from types import ModuleType

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from shards.demo.camera import Camera
from shards.demo.ground import Capsule, paint_background
from shards.demo.scene import BodyColours, Colour, Prop, Scene
from shards.demo.skeleton import BodySegment, Pose, segments

JPEG_QUALITY = 88
_SUPERSAMPLING = 2  # pictures are rendered this many times larger, and averaged: smooth edges
_NEAR_M, _FAR_M = 0.05, 60.0
_STANDARD_ERROR = 2  # its file descriptor
_BANNER = b"pybullet build time"
_TRUNK_RADIUS_M = 0.095  # the model leaves a gap between its pelvis and its chest


class Renderer:
    """Draws one body in one scene at a time, in pictures of ``pixels`` x ``pixels``.

    Use one renderer for many scenes: to set up pybullet's world takes as long as two pictures.
    """

    def __init__(self, pixels: int) -> None:
        self._bullet = _import_pybullet()
        self._pixels = pixels
        self._client = self._bullet.connect(self._bullet.DIRECT)

    def set_scene(self, scene: Scene, colours: BodyColours, size: float) -> None:
        """Replace the scene, and the body in it: of ``size``, with clothes of ``colours``."""
        self._scene = scene
        self._size = size
        self._bullet.resetSimulation(physicsClientId=self._client)
        for prop in scene.props:
            self._add_prop(prop)
        self._segments = [
            self._add_segment(segment, _segment_colour(segment.name, colours))
            for segment in segments()
        ]
        self._trunk = self._add(
            self._bullet.GEOM_CAPSULE,
            colours.shirt,
            radius=_TRUNK_RADIUS_M * size,
            length=0.2 * size,
        )

    def picture(self, pose: Pose, camera: Camera) -> np.ndarray:
        """RGB picture ``(pixels, pixels, 3)`` uint8 of the scene, with the body in ``pose``."""
        self._move_body(pose)
        colour, coverage = self._draw_bodies(camera)
        bodies = [self._segment_capsule(segment, pose) for segment in segments()]
        bodies += [_prop_capsule(prop) for prop in self._scene.props]
        background = paint_background(self._scene, camera, self._pixels, bodies)
        picture = colour + (1 - coverage) * background
        return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)

    def _draw_bodies(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Body and objects alone: colour times coverage, and coverage (0 to 1) of each pixel."""
        size = self._pixels * _SUPERSAMPLING
        _, _, rgba, _, mask = self._bullet.getCameraImage(
            size,
            size,
            viewMatrix=self._bullet.computeViewMatrix(
                camera.eye.tolist(), (camera.eye + camera.forward).tolist(), camera.up.tolist()
            ),
            projectionMatrix=self._bullet.computeProjectionMatrixFOV(
                camera.fov_deg, 1.0, _NEAR_M, _FAR_M
            ),
            shadow=0,
            lightDirection=list(self._scene.sun),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.05,
            renderer=self._bullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        covered = (np.reshape(mask, (size, size)) >= 0)[..., None].astype(float)
        colour = np.reshape(rgba, (size, size, 4))[..., :3] / 255 * covered
        return _average(colour), _average(covered)

    def _move_body(self, pose: Pose) -> None:
        capsules = [self._segment_capsule(segment, pose) for segment in segments()]
        centres = [(start + end) / 2 for start, end, _ in capsules]
        rotations = [pose.rotation[segment.name] @ segment.turn for segment in segments()]
        pelvis, chest = centres[0], centres[1]
        upwards = Rotation.align_vectors([chest - pelvis], [[0.0, 0.0, 1.0]])[0].as_matrix()
        self._place(
            [*self._segments, self._trunk],
            [*centres, (pelvis + chest) / 2],
            [*rotations, upwards],
        )

    def _place(
        self, bodies: list[int], positions: list[np.ndarray], rotations: list[np.ndarray]
    ) -> None:
        quaternions = Rotation.from_matrix(np.stack(rotations)).as_quat()
        for body, position, quaternion in zip(bodies, positions, quaternions, strict=True):
            self._bullet.resetBasePositionAndOrientation(
                body, position.tolist(), quaternion.tolist(), physicsClientId=self._client
            )

    def _segment_capsule(self, segment: BodySegment, pose: Pose) -> Capsule:
        """A segment as a capsule: for its shadow, and for its centre."""
        rotation = pose.rotation[segment.name]
        centre = pose.position[segment.name] + self._size * rotation @ segment.centre
        half = segment.size[1] / 2 if segment.shape == "capsule" else 0.0
        axis = self._size * half * (rotation @ segment.turn)[:, 2]
        radius = segment.size[0] / (2 if segment.shape == "box" else 1)
        return centre - axis, centre + axis, self._size * radius

    def _add_segment(self, segment: BodySegment, colour: Colour) -> int:
        size = [self._size * value for value in segment.size]
        if segment.shape == "box":
            return self._add(self._bullet.GEOM_BOX, colour, halfExtents=[edge / 2 for edge in size])
        if segment.shape == "capsule":
            return self._add(self._bullet.GEOM_CAPSULE, colour, radius=size[0], length=size[1])
        return self._add(self._bullet.GEOM_SPHERE, colour, radius=size[0])

    def _add_prop(self, prop: Prop) -> None:
        radius = prop.width / 2
        if prop.shape == "box":
            edges = [radius, radius, prop.height / 2]
            body = self._add(self._bullet.GEOM_BOX, prop.colour, halfExtents=edges)
        elif prop.shape == "cylinder":
            body = self._add(
                self._bullet.GEOM_CYLINDER, prop.colour, radius=radius, length=prop.height
            )
        else:
            body = self._add(self._bullet.GEOM_SPHERE, prop.colour, radius=radius)
        heading = Rotation.from_euler("z", prop.heading).as_matrix()
        self._place([body], [np.array([*prop.position, prop.height / 2])], [heading])

    def _add(self, geometry: int, colour: Colour, **shape: object) -> int:
        visual = self._bullet.createVisualShape(
            geometry, rgbaColor=[*colour, 1.0], physicsClientId=self._client, **shape
        )
        return int(
            self._bullet.createMultiBody(baseVisualShapeIndex=visual, physicsClientId=self._client)
        )


def encode_jpeg(picture: np.ndarray) -> bytes:
    """A picture ``(height, width, 3)`` uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _segment_colour(segment: str, colours: BodyColours) -> Colour:
    name = segment.removeprefix("left_").removeprefix("right_")
    return {
        "root": colours.trousers,
        "hip": colours.trousers,
        "knee": colours.trousers,
        "ankle": colours.shoes,
        "chest": colours.shirt,
        "shoulder": colours.shirt,
    }.get(name, colours.skin)


def _prop_capsule(prop: Prop) -> Capsule:
    """An object as an upright capsule, for its shadow."""
    foot = np.array([*prop.position, 0.0])
    top = np.array([*prop.position, prop.height])
    return foot, top, prop.width / 2


def _average(values: np.ndarray) -> np.ndarray:
    """Mean over the supersampled pixels of each pixel."""
    n = _SUPERSAMPLING
    # Slices, not a reshape and a mean: numpy is slow at reducing axes of length 2.
    return np.add.reduce([values[i::n, j::n] for i in range(n) for j in range(n)]) / n**2


def _import_pybullet() -> ModuleType:
    """pybullet, which only rendering needs, without the line that its import writes.

    Its C code writes the line to the file of standard error; what else comes meanwhile is shown.
    """
    kept = os.dup(_STANDARD_ERROR)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), _STANDARD_ERROR)
        try:
            return importlib.import_module("pybullet")
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            written.seek(0)
            told = b"".join(line for line in written if not line.startswith(_BANNER))
            os.write(_STANDARD_ERROR, told)
