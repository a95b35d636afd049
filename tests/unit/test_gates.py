"""The gates, each reason by a device that has just that fault."""

from collections.abc import Callable

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.recording import ACCELEROMETER, GYROSCOPE, Device
from shards.report import COPIED, DEAD, GAP, INVALID, NO_SENSOR, OUTSIDE, SATURATED
from shards.signal.condition import Conditioned, condition
from shards.signal.gates import check_window
from tests.recording_factory import acceleration, make_device, make_sensor, rotation, sample_times

SAMPLES = 250


def signal_of(change: Callable[[np.ndarray, np.ndarray], None] | None = None) -> Conditioned:
    """20 s at 100 Hz of a device with a full scale of 16 g; ``change(acc, gyr)`` in place."""
    time_s = sample_times(100.0, 20.0)
    acc, gyr = acceleration(time_s), rotation(time_s)
    if change:
        change(acc, gyr)
    kept = np.isfinite(acc[:, 2]) | np.isfinite(acc[:, 1])  # both NaN: rows that are not there
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", time_s[kept], acc[kept], limit=156.9064),
        make_sensor(GYROSCOPE, "rad/s", time_s, gyr),
    )
    device = Device("imu", "chest", sensors)
    return condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)


def test_sound_window_is_cut() -> None:
    signal = signal_of()
    imu = check_window(signal, 100, SAMPLES)
    assert isinstance(imu, np.ndarray)
    assert (imu.shape, imu.dtype) == ((6, SAMPLES), np.float32)
    assert imu.flags.c_contiguous
    assert imu.flags.writeable
    time_s = (100 + np.arange(SAMPLES)) / 50
    expected = np.concatenate([acceleration(time_s), rotation(time_s)], axis=1).T
    assert np.abs(imu - expected).max() < 0.002


def test_first_and_last_window() -> None:
    signal = signal_of()
    for start, refused in ((-1, True), (0, False), (750, False), (751, True)):
        assert (check_window(signal, start, SAMPLES) is OUTSIDE) is refused, start


def test_missing_sensor() -> None:
    device = make_device(20.0, gyroscope=False)
    signal = condition(device, channels=CHANNELS, units=UNITS, rate_hz=50.0)
    assert check_window(signal, 0, SAMPLES) is NO_SENSOR


def lose(acc: np.ndarray, gyr: np.ndarray) -> None:
    acc[1000:1010, 1:] = np.nan


def spoil(acc: np.ndarray, gyr: np.ndarray) -> None:
    acc[1000:1010, 1] = np.nan


def saturate(acc: np.ndarray, gyr: np.ndarray) -> None:
    acc[1000, 0] = 156.9


@pytest.mark.parametrize(
    ("change", "reason"), [(lose, GAP), (spoil, INVALID), (saturate, SATURATED)]
)
def test_fault_at_ten_seconds(
    change: Callable[[np.ndarray, np.ndarray], None], reason: str
) -> None:
    signal = signal_of(change)
    assert check_window(signal, 400, SAMPLES) is reason
    assert check_window(signal, 499 - 20, SAMPLES) is reason
    assert isinstance(check_window(signal, 0, SAMPLES), np.ndarray)
    assert isinstance(check_window(signal, 510, SAMPLES), np.ndarray)


@pytest.mark.parametrize("level", [0.0, 9.81, -1e-4])
@pytest.mark.parametrize("channel", range(6))
def test_dead_channel(channel: int, level: float) -> None:
    def still(acc: np.ndarray, gyr: np.ndarray) -> None:
        (acc if channel < 3 else gyr)[:, channel % 3] = level

    assert check_window(signal_of(still), 0, SAMPLES) is DEAD


def test_small_noise_is_life() -> None:
    """A sensor at rest is not dead: its noise shows."""

    def rest(acc: np.ndarray, gyr: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        acc[:] = (0.0, 0.1, 9.8) + 0.002 * rng.standard_normal(acc.shape)
        gyr[:] = 0.0005 * rng.standard_normal(gyr.shape)

    assert isinstance(check_window(signal_of(rest), 0, SAMPLES), np.ndarray)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 3), (5, 2), (3, 4)])
def test_copied_channel(source: int, target: int) -> None:
    def copy(acc: np.ndarray, gyr: np.ndarray) -> None:
        both = [*acc.T, *gyr.T]
        both[target][:] = both[source]

    assert check_window(signal_of(copy), 0, SAMPLES) is COPIED


def test_small_signals_in_volts_pass() -> None:
    """The gates know no absolute scale: EMG is of microvolts."""
    time_s = sample_times(200.0, 10.0)
    emg = 20e-6 * acceleration(time_s)[:, :2]
    device = Device("emg", "forearm", (make_sensor(("emg_1", "emg_2"), "V", time_s, emg),))
    signal = condition(device, channels=("emg_1", "emg_2"), units=("V", "V"), rate_hz=200.0)
    assert isinstance(check_window(signal, 0, 400), np.ndarray)
