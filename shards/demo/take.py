"""One take: a synthetic person performs a clip, recorded by cameras and sensors.

All random numbers of a take come from a generator with the key (seed, number of the take). So takes
may be made in any order and in any process.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from primus_scale.sample import Window, WindowMeta, window_uid
from shards.demo.camera import Camera, follow_camera, head_camera
from shards.demo.mocap import MOTION_RATE_HZ, load_clip, perform
from shards.demo.narrate import narrate
from shards.demo.postures import SEAT_M
from shards.demo.render import Renderer, encode_jpeg
from shards.demo.scene import BodyColours, random_outfit, random_scene
from shards.demo.sensor import PLACEMENTS, Placement, add_sensor_errors, random_mounting, worn_imu
from shards.demo.skeleton import BodyMotion, Pose

DATASET = "demo-mocap"
RATE_HZ = 50.0
WINDOW_S = 5.0
TAKE_MOMENTS = 4  # of a full take; its windows follow one another without overlap
PERFORMERS = 12
TEMPO_RANGE = (0.8, 1.25)
SIZE_RANGE = (0.88, 1.12)  # of bodies; 1 is the model's
SYNC = "synthetic: IMU, frames and narration come from one simulated clock"


@dataclass(frozen=True)
class TakeRequest:
    """The content of one take: its number, clip, and how many moments, placements and frames.

    frames: pictures of a moment; the first, third… are first-person, the others third-person.
    """

    seed: int
    number: int
    clip: str
    moments: int
    placements: int
    frames: int
    pixels: int


@dataclass(frozen=True)
class _Person:
    name: str
    size: float
    colours: BodyColours


@dataclass(frozen=True)
class _Moment:
    """What the windows of one moment share."""

    start_s: float
    frame_times_s: tuple[float, ...]
    frames: tuple[bytes, ...]
    texts: tuple[str, ...]


def perform_take(request: TakeRequest) -> list[Window]:
    """The windows of a take: each of its moments at each of its placements."""
    rng = _generator(request.seed, 1, request.number)
    performer = _performer(request.seed, int(rng.integers(PERFORMERS)))
    tempo = rng.uniform(*TEMPO_RANGE)
    duration_s = request.moments * WINDOW_S
    motion = perform(load_clip(request.clip), duration_s, rng, tempo=tempo, size=performer.size)
    seat_m = SEAT_M * performer.size if request.clip == "sit" else 0.0
    scene = random_scene(rng, motion.position["root"][::100, :2], seat_m)
    chosen = rng.choice(len(PLACEMENTS), size=request.placements, replace=False)
    signals = {PLACEMENTS[i]: _signal(motion, PLACEMENTS[i], performer.size, rng) for i in chosen}
    azimuth = rng.uniform(0, 2 * np.pi)
    windows: list[Window] = []
    if request.frames:
        renderer = _renderer(request.pixels)
        renderer.set_scene(scene, performer.colours, performer.size)
    for moment in range(request.moments):
        start_s = moment * WINDOW_S
        frame_times_s, frames = [], []
        for i, offset_s in enumerate(_frame_times(request.frames, rng)):
            pose = motion.pose_at(start_s + offset_s)
            camera = _camera(i, pose, performer.size, azimuth, rng)
            frame_times_s.append(start_s + offset_s)
            frames.append(encode_jpeg(renderer.picture(pose, camera)))
        shared = _Moment(
            start_s,
            tuple(frame_times_s),
            tuple(frames),
            narrate(request.clip, tempo, scene.ground, rng),
        )
        windows += _windows(request, performer.name, signals, shared)
    return windows


@functools.cache
def _renderer(pixels: int) -> Renderer:
    """The renderer of this process, made once."""
    return Renderer(pixels)


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _performer(seed: int, number: int) -> _Person:
    rng = _generator(seed, 0, number)
    return _Person(f"synthetic-{number:02d}", rng.uniform(*SIZE_RANGE), random_outfit(rng))


def _signal(
    motion: BodyMotion, placement: Placement, size: float, rng: np.random.Generator
) -> np.ndarray:
    """What a worn sensor records, float32 ``(6, n)`` at RATE_HZ."""
    step = round(MOTION_RATE_HZ / RATE_HZ)
    ideal = worn_imu(motion, placement, size, random_mounting(rng))[:, ::step]
    return add_sensor_errors(ideal, rng).astype(np.float32)


def _frame_times(frames: int, rng: np.random.Generator) -> Iterator[float]:
    """One time in each of ``frames`` equal parts of a window, s."""
    part_s = WINDOW_S / frames if frames else 0.0
    for i in range(frames):
        yield (i + rng.uniform(0.1, 0.9)) * part_s


def _camera(i: int, pose: Pose, size: float, azimuth: float, rng: np.random.Generator) -> Camera:
    if i % 2 == 0:
        return head_camera(pose, size, rng)
    return follow_camera(pose, size, azimuth, rng)


def _windows(
    request: TakeRequest, person: str, signals: dict[Placement, np.ndarray], moment: _Moment
) -> Iterator[Window]:
    """The windows of one moment, one for each sensor."""
    recording = f"seed{request.seed}-{request.number:05d}-{request.clip}"
    first = round(moment.start_s * RATE_HZ)
    inside = slice(first, first + round(WINDOW_S * RATE_HZ))
    for placement, signal in signals.items():
        meta = WindowMeta(
            uid=window_uid(DATASET, recording, placement.device, moment.start_s),
            dataset=DATASET,
            recording=recording,
            device=placement.device,
            placement=placement.name,
            person=person,
            session=recording,
            start_s=moment.start_s,
            texts=moment.texts,
            frame_times_s=moment.frame_times_s,
            sync=SYNC,
        )
        imu = np.ascontiguousarray(signal[:, inside])
        yield Window(imu=imu, meta=meta, frames=moment.frames)
