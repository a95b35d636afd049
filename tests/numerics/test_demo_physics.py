"""The synthetic IMU against mechanics worked out by hand, and the body against pybullet's."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from shards.demo.mocap import (
    CUTOFF_HZ,
    MOTION_RATE_HZ,
    STILL_CLIPS,
    TRAIN_CLIPS,
    VALIDATION_CLIPS,
    load_clip,
    perform,
)
from shards.demo.sensor import (
    ACCELEROMETER_NOISE_SD,
    ACCELEROMETER_RANGE,
    GRAVITY,
    GYROSCOPE_NOISE_SD,
    MOUNTING_MAX_DEG,
    NOMINAL_MOUNTING,
    PLACEMENTS,
    add_sensor_errors,
    ideal_imu,
    random_mounting,
    worn_imu,
)
from shards.demo.skeleton import HINGES, JOINTS, data_path, forward_kinematics, segments
from tests.conftest import require

try:
    data_path("humanoid/humanoid.urdf")
    HAS_CLIPS = True
except FileNotFoundError:
    HAS_CLIPS = False

G = 9.80665
RATE_HZ = 200.0
TIME_S = np.arange(400) / RATE_HZ


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(7))


@pytest.fixture
def clips() -> None:
    require(HAS_CLIPS, "pybullet_data is not installed")


def test_body_at_rest_reads_gravity_on_the_up_axis() -> None:
    imu = ideal_imu(np.ones((50, 3)), np.tile(np.eye(3), (50, 1, 1)), RATE_HZ)
    np.testing.assert_allclose(imu, np.tile([[0], [0], [G], [0], [0], [0]], 50), atol=1e-9)


def test_tilted_sensor_reads_gravity_on_the_axis_that_points_up() -> None:
    # Turned by +90 degrees about x, the sensor's y axis points up.
    tilted = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    imu = ideal_imu(np.zeros((5, 3)), np.tile(tilted, (5, 1, 1)), RATE_HZ)
    np.testing.assert_allclose(imu[:3, 2], [0, G, 0], atol=1e-9)


def test_free_fall_reads_nothing() -> None:
    position = 0.5 * GRAVITY * TIME_S[:, None] ** 2
    imu = ideal_imu(position, np.tile(np.eye(3), (400, 1, 1)), RATE_HZ)
    np.testing.assert_allclose(imu, 0, atol=1e-6)


def test_rotation_gives_its_rate_and_the_centripetal_acceleration() -> None:
    rate, radius = 3.0, 0.4  # rad/s, m
    angle = rate * TIME_S
    position = radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    rotation = Rotation.from_euler("z", angle[:, None]).as_matrix()  # x stays radial, outwards
    imu = ideal_imu(position, rotation, RATE_HZ)
    expected = np.array([-(rate**2) * radius, 0, G, 0, 0, rate])
    np.testing.assert_allclose(imu, np.tile(expected[:, None], 400), rtol=1e-4, atol=1e-6)


def test_gyroscope_reads_in_the_frame_of_the_sensor() -> None:
    omega_world = np.array([0.5, -1.0, 2.0])
    start = Rotation.from_euler("xyz", [0.3, -0.7, 1.1])
    rotation = Rotation.from_rotvec(TIME_S[:, None] * omega_world) * start
    imu = ideal_imu(np.zeros((400, 3)), rotation.as_matrix(), RATE_HZ)
    expected = rotation.inv().apply(omega_world)
    np.testing.assert_allclose(imu[3:, 1:-1].T, expected[1:-1], atol=1e-9)


@pytest.mark.usefixtures("clips")
@pytest.mark.parametrize("clip", ["walk", "spinkick"])
def test_gyroscope_integrates_to_the_change_of_orientation(
    clip: str, rng: np.random.Generator
) -> None:
    motion = perform(load_clip(clip), 3.0, rng)
    rotation = motion.rotation["right_wrist"]
    imu = ideal_imu(motion.position["right_wrist"], rotation, MOTION_RATE_HZ)
    turned = Rotation.from_matrix(rotation[1])
    for rate in (imu[3:, 1:-2] + imu[3:, 2:-1]).T / 2:
        turned = turned * Rotation.from_rotvec(rate / MOTION_RATE_HZ)
    error = (Rotation.from_matrix(rotation[-2]).inv() * turned).magnitude()
    assert np.rad2deg(error) < 1.0


@pytest.mark.usefixtures("clips")
def test_specific_force_integrates_to_the_change_of_velocity(rng: np.random.Generator) -> None:
    motion = perform(load_clip("run"), 3.0, rng)
    position, rotation = motion.position["chest"], motion.rotation["chest"]
    imu = ideal_imu(position, rotation, MOTION_RATE_HZ)
    acceleration = np.einsum("nij,jn->ni", rotation, imu[:3]) + GRAVITY
    velocity = np.diff(position, axis=0) * MOTION_RATE_HZ  # between samples
    gained = acceleration[1:-1].sum(axis=0) / MOTION_RATE_HZ
    np.testing.assert_allclose(gained, velocity[-1] - velocity[0], atol=1e-6)


@pytest.mark.usefixtures("clips")
@pytest.mark.parametrize("clip", ["walk", "walk_forward", "turn_left0"])
def test_walking_is_felt_at_the_pelvis_as_by_a_real_phone(
    clip: str, rng: np.random.Generator
) -> None:
    motion = perform(load_clip(clip), 10.0, rng)
    imu = worn_imu(motion, PLACEMENTS[0], 1.0, NOMINAL_MOUNTING)
    norm = np.linalg.norm(imu[:3], axis=0)
    assert 9.3 < np.median(norm) < 11
    assert np.quantile(norm, 0.99) < 25
    up, right, ahead = imu[:3].mean(axis=1)
    assert 9.3 < up < 10.3
    assert abs(right) < 1.5
    assert abs(ahead) < 2.5


@pytest.mark.usefixtures("clips")
@pytest.mark.parametrize(
    ("clip", "up", "ahead"),
    [("stand", G, 0), ("sit", G, 1.7), ("lie_on_back", 0, G), ("lie_on_front", 0, -G)],
)
def test_still_bodies_feel_gravity_only(
    clip: str, up: float, ahead: float, rng: np.random.Generator
) -> None:
    motion = perform(load_clip(clip), 10.0, rng)
    imu = worn_imu(motion, PLACEMENTS[0], 1.0, NOMINAL_MOUNTING)
    np.testing.assert_allclose(np.linalg.norm(imu[:3], axis=0), G, atol=0.2)
    np.testing.assert_allclose(imu[:3].mean(axis=1), [up, 0, ahead], atol=0.5)


@pytest.mark.usefixtures("clips")
@pytest.mark.parametrize("clip", TRAIN_CLIPS + STILL_CLIPS + VALIDATION_CLIPS)
def test_repetitions_join_without_a_jerk(clip: str, rng: np.random.Generator) -> None:
    motion = perform(load_clip(clip), 12.0, rng)
    step = np.linalg.norm(np.diff(motion.position["root"], axis=0), axis=1)
    assert step.max() * MOTION_RATE_HZ < 6  # m/s: nobody here is faster
    height = motion.position["root"][:, 2]
    assert 0 < height.min() <= height.max() < 2
    imu = worn_imu(motion, PLACEMENTS[0], 1.0, NOMINAL_MOUNTING)
    assert np.linalg.norm(imu[:3], axis=0).max() < 8 * G


@pytest.mark.usefixtures("clips")
def test_motion_is_smooth_enough_to_differentiate(rng: np.random.Generator) -> None:
    motion = perform(load_clip("run"), 10.0, rng)
    path = motion.position["root"][:, 2]
    spectrum = np.abs(np.fft.rfft((path - path.mean()) * np.hanning(len(path)))) ** 2
    frequency = np.fft.rfftfreq(len(path), 1 / MOTION_RATE_HZ)
    assert spectrum[frequency > 2 * CUTOFF_HZ].sum() < 1e-4 * spectrum.sum()


@pytest.mark.usefixtures("clips")
def test_tempo_and_size_scale_the_motion(rng: np.random.Generator) -> None:
    clip = load_clip("run")
    speed = {}
    for tempo, size in itertools.product((1.0, 1.25), (1.0, 1.1)):
        motion = perform(clip, 10.0, np.random.default_rng(3), tempo=tempo, size=size)
        way = motion.position["root"][-1] - motion.position["root"][0]
        speed[tempo, size] = np.linalg.norm(way)
    assert speed[1.25, 1.0] / speed[1.0, 1.0] == pytest.approx(1.25, rel=0.05)
    assert speed[1.0, 1.1] / speed[1.0, 1.0] == pytest.approx(1.1, rel=1e-6)


@pytest.mark.usefixtures("clips")
def test_forward_kinematics_equal_pybullets(rng: np.random.Generator) -> None:
    pybullet = pytest.importorskip("pybullet")
    clip = load_clip("cartwheel")
    frame, size = 60, 1.1
    pose = Rotation.from_quat(clip.quaternions[frame])
    motion = forward_kinematics(clip.root[[frame]], pose.as_matrix()[None], rate_hz=1.0, size=size)
    client = pybullet.connect(pybullet.DIRECT)
    try:
        # The model's y axis is up; the world's z is. pybullet takes a body's base as turned.
        to_z_up = Rotation.from_euler("x", 90, degrees=True)
        body = pybullet.loadURDF(
            str(data_path("humanoid/humanoid.urdf")),
            globalScaling=0.25 * size,
            basePosition=to_z_up.apply(size * clip.root[frame]).tolist(),
            baseOrientation=(to_z_up * pose[0]).as_quat().tolist(),
        )
        names = [pybullet.getJointInfo(body, i) for i in range(pybullet.getNumJoints(body))]
        for info in names:
            joint = info[1].decode()
            if joint in JOINTS and joint != "root":
                turn = pose[JOINTS.index(joint)]
                state = turn.as_rotvec()[2:] if joint in HINGES else turn.as_quat()
                pybullet.resetJointStateMultiDof(body, info[0], state.tolist())
        for info in names:
            link = info[12].decode()
            state = pybullet.getLinkState(body, info[0], computeForwardKinematics=True)
            np.testing.assert_allclose(motion.position[link][0], state[4], atol=2e-4)
            apart = Rotation.from_quat(state[5]).inv() * Rotation.from_matrix(
                motion.rotation[link][0]
            )
            assert apart.magnitude() < 1e-3
    finally:
        pybullet.disconnect(client)
    assert {info[12].decode() for info in names} == {segment.name for segment in segments()}


def test_mountings_are_rotations_near_the_nominal_one(rng: np.random.Generator) -> None:
    angles = []
    for _ in range(200):
        mounting = random_mounting(rng)
        np.testing.assert_allclose(mounting @ mounting.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(mounting) == pytest.approx(1)
        turn = Rotation.from_matrix(mounting @ NOMINAL_MOUNTING.T)
        angles.append(np.rad2deg(turn.magnitude()))
    assert max(angles) <= MOUNTING_MAX_DEG + 1e-6
    assert np.ptp(angles) > MOUNTING_MAX_DEG / 2


def test_faults_are_bias_noise_and_saturation(rng: np.random.Generator) -> None:
    still = np.zeros((6, 5000))
    faulty = add_sensor_errors(still, rng)
    noise = np.repeat([ACCELEROMETER_NOISE_SD, GYROSCOPE_NOISE_SD], 3)
    np.testing.assert_allclose(faulty.std(axis=1), noise, rtol=0.1)
    assert (np.abs(faulty.mean(axis=1)) > 0).all()
    assert add_sensor_errors(still + 1000, rng)[:3].max() <= ACCELEROMETER_RANGE
