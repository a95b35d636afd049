"""The measured lag against videos rendered with a known one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from primus_scale.sample import CHANNELS, UNITS
from shards.files.video import Video
from shards.lag.measure import measure_lag, shift_frames
from shards.readers import create_reader
from shards.recording import GYROSCOPE, Device, FrameSource
from shards.report import CONFIDENT, LagReport
from shards.settings import IngestSettings
from shards.signal.condition import Conditioned, condition
from tests.reading import read_sensor
from tests.recording_factory import make_device, make_sensor
from tests.recordings import recording_path
from tests.turning_camera import (
    Motion,
    TurningCamera,
    angular_velocity,
    gyroscope_of,
    rest,
    sway,
    wander,
)
from tests.video_factory import write_video

SETTINGS = IngestSettings(CHANNELS, UNITS, rate_hz=50.0, window_s=5.0, hop_s=5.0)
SECONDS = 10.0
STAMPS_S = np.arange(0, SECONDS, 1 / 20)
MOTION = wander(seed=1)
CAMERA = TurningCamera(MOTION, STAMPS_S)


def conditioned(device: Device) -> Conditioned:
    return condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)


@pytest.fixture(scope="module")
def signal() -> Conditioned:
    return conditioned(gyroscope_of(MOTION, SECONDS))


def measured(signal: Conditioned, frames: FrameSource) -> LagReport:
    report = measure_lag(signal, frames, "imu", SETTINGS)
    assert isinstance(report, LagReport), report
    return report


@pytest.mark.parametrize("lag_s", [0.3, -0.3, 1.2345, -4.5])
def test_a_known_lag_is_found_and_flagged(signal: Conditioned, lag_s: float) -> None:
    report = measured(signal, replace(CAMERA, lag_s=lag_s))
    assert report.lag_s == pytest.approx(lag_s, abs=0.005)  # required: 0.020
    assert report.confidence > 0.99 and report.correlation > 0.99
    assert report.flagged and not report.corrected
    assert report.device == "imu"
    assert report.seconds == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("rate_fps", [10, 25, 60])
def test_no_lag_has_no_bias_of_part_of_a_frame(signal: Conditioned, rate_fps: int) -> None:
    report = measured(signal, TurningCamera(MOTION, np.arange(0, SECONDS, 1 / rate_fps)))
    assert report.lag_s == pytest.approx(0, abs=0.003)
    assert report.confidence > 0.99 and not report.flagged


@pytest.mark.parametrize("lag_s", [0.3, 0.0])
def test_variable_frame_rate(signal: Conditioned, lag_s: float) -> None:
    spacings = np.random.default_rng(3).choice(
        [1 / 60, 1 / 30, 1 / 15, 0.3], 400, p=[0.3, 0.4, 0.28, 0.02]
    )
    stamps_s = np.cumsum(spacings)
    stamps_s = stamps_s[stamps_s < SECONDS]
    report = measured(signal, TurningCamera(MOTION, stamps_s, lag_s))
    assert report.lag_s == pytest.approx(lag_s, abs=0.005)
    assert report.confidence > 0.99
    usual_s = np.diff(stamps_s)[np.diff(stamps_s) < 0.25]
    assert report.seconds == pytest.approx(usual_s.sum(), abs=0.1)  # 0.3 s are too long
    assert len(usual_s) < len(stamps_s) - 1


@pytest.mark.parametrize("seed", range(3))
def test_any_mounting_of_the_device(seed: int) -> None:
    mounting = Rotation.random(rng=np.random.default_rng(seed))
    signal = conditioned(gyroscope_of(MOTION, SECONDS, mounting=mounting))
    report = measured(signal, replace(CAMERA, lag_s=0.3))
    assert report.lag_s == pytest.approx(0.3, abs=0.005)
    assert report.confidence > 0.99 and report.correlation > 0.99


def test_a_gap_in_the_gyroscope_is_left_out() -> None:
    device = gyroscope_of(MOTION, SECONDS)
    time_s, values = read_sensor(device.sensors[1])
    kept = (time_s < 4.0) | (time_s > 5.5)
    holed = make_sensor(GYROSCOPE, "rad/s", time_s[kept], values[kept])
    signal = conditioned(replace(device, sensors=(device.sensors[0], holed)))
    assert len(signal.segments) == 2
    report = measured(signal, replace(CAMERA, lag_s=0.3))
    assert report.lag_s == pytest.approx(0.3, abs=0.005)
    assert report.confidence > 0.99 and report.correlation > 0.99


def test_shift_within_the_set_limit_is_not_flagged(signal: Conditioned) -> None:
    report = measured(signal, replace(CAMERA, lag_s=0.19))
    assert report.lag_s == pytest.approx(0.19, abs=0.005)
    assert report.confidence > 0.99 and not report.flagged


def test_shifted_frames_have_no_lag(signal: Conditioned) -> None:
    late = replace(CAMERA, lag_s=0.3)
    mended = shift_frames(late, 0.3)
    np.testing.assert_array_equal(mended.times_s(), STAMPS_S - 0.3)
    for ours, theirs in zip(
        mended.pictures([2, 5], short_side=30), late.pictures([2, 5], short_side=30), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    report = measured(signal, mended)
    assert report.lag_s == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("period_s", [0.5, 1.0])
def test_periodic_motion_leaves_doubt(period_s: float) -> None:
    motion = sway(period_s)
    report = measured(
        conditioned(gyroscope_of(motion, SECONDS)), TurningCamera(motion, STAMPS_S, 0.3)
    )
    # Two axes and their mounting fit any lag, the third one in each quarter of the period.
    off = (report.lag_s - 0.3) / (period_s / 4)
    assert off == pytest.approx(round(off), abs=0.05)
    assert report.correlation > 0.99
    assert report.confidence < 0.7 and not report.flagged


def test_motion_of_another_is_no_lag() -> None:
    for seed in (2, 3):
        signal = conditioned(gyroscope_of(wander(seed), SECONDS))
        report = measured(signal, CAMERA)
        assert report.confidence < 0.1 and not report.flagged


NOISE_ONLY = np.full((512, 1024), 99, np.uint8)


@pytest.mark.parametrize(
    ("gyroscope", "video"),
    [
        (MOTION, TurningCamera(rest, STAMPS_S)),
        (MOTION, replace(CAMERA, scene=NOISE_ONLY)),
        (rest, CAMERA),
        (rest, TurningCamera(rest, STAMPS_S)),
    ],
    ids=["camera at rest", "nothing but noise in the picture", "device at rest", "both at rest"],
)
def test_noise_is_no_lag(gyroscope: Motion, video: TurningCamera) -> None:
    report = measured(conditioned(gyroscope_of(gyroscope, SECONDS)), video)
    assert report.confidence < 0.01 and not report.flagged


def test_why_nothing_can_be_compared(signal: Conditioned) -> None:
    def reason(signal: Conditioned, frames: FrameSource) -> str:
        outcome = measure_lag(signal, frames, "watch", SETTINGS)
        assert isinstance(outcome, str)
        return outcome.removeprefix("lag of the picture behind watch not measured: ")

    accelerometer = make_device(SECONDS, gyroscope=False)
    assert reason(conditioned(accelerometer), CAMERA) == "no signal of a gyroscope"
    only = condition(accelerometer, channels=CHANNELS[:3], units=UNITS[:3], rate_hz=50.0)
    assert reason(only, CAMERA) == "no signal of a gyroscope"
    too_little = "motion can be followed in {} s of video only"
    assert reason(signal, replace(CAMERA, stamps_s=STAMPS_S[:81])) == too_little.format("4.0")
    burst_s = np.array([0, 1, 2, 900]) / 120
    for elsewhere in (STAMPS_S - 100, STAMPS_S + 100, STAMPS_S[:0], STAMPS_S[:1], burst_s):
        assert reason(signal, replace(CAMERA, stamps_s=elsewhere)) == too_little.format("0.0")
    slow = replace(CAMERA, stamps_s=np.arange(0, SECONDS, 0.5))  # a time lapse
    assert reason(signal, slow) == too_little.format("0.0")
    flat = replace(CAMERA, scene=NOISE_ONLY, noise=0.0)
    assert reason(signal, flat) == too_little.format("0.0")
    nothing = "nothing moves in the video, or in the gyroscope"
    assert reason(signal, TurningCamera(rest, STAMPS_S, noise=0.0)) == nothing
    dead = conditioned(gyroscope_of(rest, SECONDS, noise=0.0))
    assert reason(dead, CAMERA) == nothing


class FlatVideo:
    """Nothing to see for a long time; tells which frames were asked for."""

    def __init__(self, stamps_s: np.ndarray) -> None:
        self.stamps_s = stamps_s
        self.asked: list[int] = []

    def times_s(self) -> np.ndarray:
        return self.stamps_s

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        assert short_side is not None and short_side <= 160
        for number in numbers:
            self.asked.append(number)
            yield np.full((short_side, short_side, 3), 99, np.uint8)


def test_of_long_video_little_is_decoded_where_the_device_turns_most() -> None:
    seconds = 360.0
    time_s = np.arange(0, seconds, 0.02)
    lively = np.floor(time_s / 20) % 3 == 1  # a third of each minute
    rates = angular_velocity(wander(4), time_s) * np.where(lively, 1.0, 0.1)[:, None]
    sensor = make_sensor(GYROSCOPE, "rad/s", time_s, rates)
    device = replace(make_device(seconds, gyroscope=False), sensors=(sensor,))
    signal = condition(device, channels=GYROSCOPE, units=UNITS[3:], rate_hz=50.0)
    video = FlatVideo(np.arange(0, seconds, 1 / 120))
    assert isinstance(measure_lag(signal, video, "imu", SETTINGS), str)
    asked_s = video.stamps_s[video.asked]
    assert len(asked_s) <= 6 * 20 * 30 + 6
    assert set(np.floor(asked_s / 60)) == set(range(6))
    assert np.mean(np.floor(asked_s / 20) % 3 == 1) > 0.98


def test_the_same_video_gives_the_same_report(signal: Conditioned) -> None:
    frames = replace(CAMERA, lag_s=0.3, stamps_s=STAMPS_S[:120])
    assert measured(signal, frames) == measured(signal, frames)


def test_a_video_file(tmp_path: Path, signal: Conditioned) -> None:
    path = tmp_path / "late.mp4"
    camera = replace(CAMERA, lag_s=0.3)
    pictures = camera.pictures(range(len(STAMPS_S)), short_side=240)
    write_video(path, pictures, times_s=STAMPS_S.tolist(), b_frames=2)
    report = measured(signal, Video(partial(path.open, "rb"), str(path)))
    assert report.lag_s == pytest.approx(0.3, abs=0.01)  # required: 0.020
    assert report.confidence > 0.99 and report.flagged


def test_real_video_that_its_camera_has_stabilised() -> None:
    """GoPro MAX: its picture does not move as the camera did, so nothing may be claimed."""
    reader = create_reader("gopro", str(recording_path("gopro_max_hero.mp4")))
    (ref,) = reader.recordings()
    with reader.open(ref) as recording:
        assert recording.frames is not None
        (device,) = recording.devices
        report = measured(conditioned(device), recording.frames)
    assert report.seconds == pytest.approx(10.4, abs=0.2)
    assert report.confidence < 0.5 < CONFIDENT and not report.flagged
