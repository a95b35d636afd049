import numpy as np
import pytest

from shards.recording import ACCELEROMETER, Device
from shards.signal.condition import condition
from tests.recording_factory import acceleration, make_sensor, sample_times


@pytest.mark.parametrize("value", [1e30, 1e39, 2e4, -1e8])
def test_values_that_no_sensor_gives_are_invalid_records(value: float) -> None:
    """A single one would pass for a spike, and ruin the mean and deviation of a whole data set."""
    time_s = sample_times(100.0, 10.0)
    values = acceleration(time_s)
    values[500, 1] = value
    device = Device("imu", "chest", (make_sensor(ACCELEROMETER, "m/s2", time_s, values),))
    signal = condition(device, channels=ACCELEROMETER, units=("m/s2",) * 3, rate_hz=50.0)
    (report,) = signal.sensors
    assert report.invalid == 1
    assert max(np.abs(stretch.values).max() for stretch in signal.stretches) < 20
