import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.recording import ACCELEROMETER, GYROSCOPE, Device
from shards.signal.condition import condition
from shards.signal.direction import gravity_direction
from tests.recording_factory import make_sensor, rotation, sample_times

G = 9.80665


def direction(acc: np.ndarray, rate_hz: float = 100.0) -> tuple[float, float, float] | None:
    time_s = np.arange(len(acc)) / rate_hz
    device = Device("imu", "head", (make_sensor(ACCELEROMETER, "m/s2", time_s, acc),))
    return gravity_direction(
        condition(device, channels=ACCELEROMETER, units=UNITS[:3], rate_hz=50.0)
    )


def steady(vector: tuple[float, float, float], seconds: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.05, (round(seconds * 100), 3))
    return np.array(vector) * G + noise


def test_gravity_points_where_the_reading_at_rest_does() -> None:
    for vector in ((0, -1, 0), (-0.6, 0, 0.8), (0, 0, 1)):
        found = direction(steady(vector, 10))
        assert found == pytest.approx(vector, abs=0.01)


def test_only_slow_seconds_count_where_there_are_some() -> None:
    """Three seconds at rest among nine of blows along another axis."""
    blows = steady((0, 1, 0), 9)
    blows[:, 1] += 20 * (np.arange(900) % 40 < 10)
    found = direction(np.concatenate([steady((1, 0, 0), 3), blows]))
    assert found == pytest.approx((1, 0, 0), abs=0.1)
    assert direction(blows) == pytest.approx((0, 1, 0), abs=0.01), "all of them, if none is slow"


def test_a_device_that_turned_every_way_has_a_short_one() -> None:
    turned = np.concatenate([steady((1, 0, 0), 10), steady((-1, 0, 0), 10)])
    assert np.linalg.norm(direction(turned) or ()) < 0.1
    quarter = np.concatenate([steady((1, 0, 0), 10), steady((0, 1, 0), 10)])
    assert direction(quarter) == pytest.approx((0.5, 0.5, 0), abs=0.05)


def test_recordings_of_less_than_a_second_have_one() -> None:
    assert direction(steady((0, -1, 0), 0.4)) == pytest.approx((0, -1, 0), abs=0.02)


def test_without_an_accelerometer_there_is_none() -> None:
    time_s = sample_times(100.0, 5.0)
    device = Device("d", "p", (make_sensor(GYROSCOPE, "rad/s", time_s, rotation(time_s)),))
    signal = condition(device, channels=GYROSCOPE, units=UNITS[3:], rate_hz=50.0)
    assert gravity_direction(signal) is None
    assert (
        gravity_direction(condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)) is None
    )
