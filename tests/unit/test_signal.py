"""The signal path: what becomes of disorder, bad rows, gaps, clocks, units and missing sensors."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from primus_scale.signal.units import UNIT_FACTORS
from shards.recording import ACCELEROMETER, GYROSCOPE, Device
from shards.settings import SensorLimits
from shards.signal import condition as signal_module
from shards.signal.condition import Conditioned, Gap, Segment, condition
from tests.recording_factory import acceleration, make_device, make_sensor, rotation, sample_times

ROOT = Path(__file__).parents[2]
RATE_HZ = 50.0
G = 9.80665  # m/s2
END = 15  # outputs next to a gap or an end, less exact


def conditioned(device: Device, **options: Any) -> Conditioned:
    settings = {"channels": CHANNELS, "units": UNITS, "rate_hz": RATE_HZ} | options
    return condition(device, **settings)


def accelerometer(
    time_s: np.ndarray, values: np.ndarray | None = None, unit: str = "m/s2", **options: Any
) -> Device:
    """A device of an accelerometer alone."""
    values = acceleration(time_s) if values is None else values
    return Device(
        "wrist", "left wrist", (make_sensor(ACCELEROMETER, unit, time_s, values, **options),)
    )


def only_acc(device: Device, **options: Any) -> Conditioned:
    return conditioned(device, channels=ACCELEROMETER, units=UNITS[:3], **options)


def error_of(
    segment: Segment, expected: Callable[[np.ndarray], np.ndarray], *, end: int = END
) -> float:
    """Largest difference from an analytic signal, away from the segment's ends."""
    time_s = np.arange(segment.start, segment.stop) / RATE_HZ
    inner = slice(end, len(time_s) - end)
    return float(np.abs(segment.values - expected(time_s).T)[:, inner].max())


def both(time_s: np.ndarray) -> np.ndarray:
    return np.concatenate([acceleration(time_s), rotation(time_s)], axis=1)


def test_clean_device() -> None:
    signal = conditioned(make_device(60.0, rate_hz=100.0, start_s=3.0))
    (segment,) = signal.segments
    assert (segment.start, segment.stop) == (150, 3150)
    assert segment.values.shape == (6, 3000)
    assert segment.values.dtype == np.float32
    assert segment.saturated.shape == (3000,)
    assert not segment.saturated.any()
    assert error_of(segment, both) < 0.002
    assert (signal.start_s, signal.end_s) == (3.0, pytest.approx(62.99))
    assert signal.gaps == ()
    assert signal.missing == ()
    magnitude = np.linalg.norm(acceleration(sample_times(100.0, 60.0, start_s=3.0)), axis=1)
    assert signal.median_acc == pytest.approx(float(np.median(magnitude)), rel=1e-3)
    report = signal.sensors[0]
    assert (report.samples, report.unit, report.gaps) == (6000, "m/s2", 0)
    assert report.rate_hz == pytest.approx(100.0, rel=1e-9)


def test_channels_come_in_the_order_asked_for() -> None:
    device = make_device(10.0)
    channels = ("gyr_z", "acc_x")
    signal = conditioned(device, channels=channels, units=("rad/s", "m/s2"))
    assert signal.channels == channels
    assert error_of(signal.segments[0], lambda t: both(t)[:, [5, 0]]) < 0.002


def test_sensors_of_different_rate_and_phase_share_a_grid() -> None:
    slow, fast = sample_times(31.0, 40.0, start_s=1.013), sample_times(202.0, 39.0, start_s=0.2)
    device = Device(
        "phone",
        "pocket",
        (
            make_sensor(GYROSCOPE, "rad/s", slow, rotation(slow), chunk=7),
            make_sensor(ACCELEROMETER, "m/s2", fast, acceleration(fast)),
        ),
    )
    signal = conditioned(device)
    (segment,) = signal.segments
    assert segment.start == 51  # first grid point after the later sensor began
    assert segment.stop == int(fast[-1] * RATE_HZ) + 1
    assert error_of(segment, both) < 0.005
    assert signal.start_s == slow[0]
    assert signal.end_s == fast[-1]
    assert [round(one.rate_hz) for one in signal.sensors] == [31, 202]


@pytest.mark.parametrize("jitter", [0.1, 0.3])
def test_jittered_times(jitter: float) -> None:
    signal = conditioned(make_device(30.0, rate_hz=200.0, jitter=jitter))
    assert len(signal.segments) == 1
    assert error_of(signal.segments[0], both) < 0.002
    assert signal.sensors[0].out_of_order == 0


def test_unordered_and_repeated_rows_change_nothing() -> None:
    time_s = sample_times(100.0, 20.0)
    expected = only_acc(accelerometer(time_s))
    rng = np.random.default_rng(0)
    order = rng.permutation(np.concatenate([np.arange(2000), np.arange(0, 2000, 4)]))
    signal = only_acc(accelerometer(time_s[order], acceleration(time_s[order])))
    assert np.array_equal(signal.segments[0].values, expected.segments[0].values)
    assert signal.sensors[0].duplicates == 500
    assert signal.sensors[0].out_of_order == int((np.diff(time_s[order]) < 0).sum())
    assert signal.sensors[0].samples == 2500


def test_bad_rows_are_counted_and_bridged() -> None:
    time_s = sample_times(100.0, 20.0)
    values = acceleration(time_s)
    values[[100, 500, 501], [0, 1, 2]] = np.nan
    values[900, 1] = np.inf
    time_s[[50, 1300]] = np.nan
    time_s[1400] = 1.7e18  # nanoseconds among seconds
    signal = only_acc(accelerometer(time_s, values))
    (segment,) = signal.segments
    report = signal.sensors[0]
    assert (report.samples, report.invalid, report.untimed) == (2000, 4, 3)
    assert error_of(segment, acceleration) < 0.01
    assert signal.end_s == pytest.approx(19.99)


@pytest.mark.parametrize("invalid", [False, True])
def test_gap_with_and_without_invalid_rows(invalid: bool) -> None:
    time_s = sample_times(100.0, 20.0)
    values = acceleration(time_s)
    lost = (time_s > 4.995) & (time_s < 6.0)
    if invalid:
        values[lost] = np.nan
    else:
        time_s, values = time_s[~lost], values[~lost]
    signal = only_acc(accelerometer(time_s, values))
    assert signal.gaps == (Gap(pytest.approx(4.99), pytest.approx(6.0), invalid),)
    first, second = signal.segments
    assert (first.start, first.stop, second.start, second.stop) == (0, 250, 300, 1000)
    assert error_of(first, acceleration) < 0.005
    assert error_of(second, acceleration) < 0.005
    assert signal.sensors[0].gap_s == pytest.approx(1.01)
    assert signal.segment_at(249) is first
    assert signal.segment_at(250) is None
    assert signal.segment_at(300) is second
    assert signal.segment_at(1000) is None
    assert signal.segment_at(-1) is None
    assert signal.invalid_within(5.5, 7.0) is invalid
    assert signal.invalid_within(7.0, 8.0) is False


def test_gap_of_one_sensor_is_one_of_the_device() -> None:
    device = make_device(20.0)
    time_s = sample_times(100.0, 20.0)
    kept = (time_s < 5) | (time_s > 5.5)
    sparse = make_sensor(GYROSCOPE, "rad/s", time_s[kept], rotation(time_s[kept]))
    signal = conditioned(Device("imu", "chest", (device.sensors[0], sparse)))
    assert [(s.start, s.stop) for s in signal.segments] == [(0, 250), (276, 1000)]
    assert [one.gaps for one in signal.sensors] == [0, 1]


def test_a_lost_sample_is_filled_in_where_that_leaves_90_ms_at_most() -> None:
    cases = ((20, [], 1), (20, [50], 2), (25, [50, 99], 1), (25, [50, 51], 2))
    for rate_hz, lost, segments in cases:
        time_s = np.delete(sample_times(rate_hz, 20.0), lost)
        assert len(only_acc(accelerometer(time_s)).segments) == segments


def test_gap_limit_is_the_users() -> None:
    time_s = sample_times(100.0, 20.0)
    kept = np.delete(np.arange(2000), np.s_[700:710])
    assert len(only_acc(accelerometer(time_s[kept])).gaps) == 1
    assert len(only_acc(accelerometer(time_s[kept]), limits=SensorLimits(gap_s=0.2)).gaps) == 0


@pytest.mark.parametrize("jump_s", [5e7, 1.6e9])
def test_clock_that_jumps_forward_by_years(jump_s: float) -> None:
    time_s = sample_times(100.0, 20.0)
    values = acceleration(time_s)
    time_s[1000:] += jump_s
    signal = only_acc(accelerometer(time_s, values))
    first, second = signal.segments
    assert (first.start, first.stop) == (0, 500)
    assert second.start == round((10 + jump_s) * RATE_HZ)
    assert second.values.shape == (3, 500)
    assert error_of(first, acceleration) < 0.005
    assert signal.gaps[0].end_s - signal.gaps[0].start_s > jump_s


def test_one_absurd_time_leaves_the_rest_as_it_is() -> None:
    time_s = sample_times(100.0, 20.0)
    values = acceleration(time_s)
    time_s[1000] = 9e10
    signal = only_acc(accelerometer(time_s, values))
    assert error_of(signal.segments[0], acceleration) < 0.005
    assert sum(segment.values.shape[1] for segment in signal.segments[1:]) <= 1
    assert signal.sensors[0].out_of_order == 1


def test_clock_that_jumps_back_far() -> None:
    time_s = sample_times(100.0, 20.0, start_s=1e6)
    values = acceleration(time_s - 1e6)
    time_s[1000:] -= 5e5
    signal = only_acc(accelerometer(time_s, values))
    assert [segment.values.shape[1] for segment in signal.segments] == [500, 500]
    assert signal.sensors[0].out_of_order == 1
    assert signal.sensors[0].duplicates == 0


@pytest.mark.parametrize("phase_s", [0.0, 0.004])
def test_clock_that_restarts_keeps_what_came_first(phase_s: float) -> None:
    time_s = sample_times(100.0, 20.0)
    values = acceleration(time_s)
    again = np.concatenate([time_s, time_s[:1000] + phase_s])
    signal = only_acc(accelerometer(again, np.concatenate([values, -values[:1000]])))
    (segment,) = signal.segments
    assert error_of(segment, acceleration) < 0.002
    report = signal.sensors[0]
    assert (report.out_of_order, report.duplicates, report.overlapping) == (1, 0, 1000)
    assert report.rate_hz == pytest.approx(100.0)


def test_clock_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device wrist, sensor .*its clock stood still"):
        only_acc(accelerometer(np.full(500, 3.0), acceleration(sample_times(100.0, 5.0))))


@pytest.mark.parametrize(
    ("unit", "per_si"),
    [("m/s2", 1.0), ("g", 1 / G), ("-g", -1 / G), ("mg", 1000 / G), ("g/64", 64 / G)],
)
def test_units_of_acceleration(unit: str, per_si: float) -> None:
    time_s = sample_times(100.0, 10.0)
    signal = only_acc(accelerometer(time_s, acceleration(time_s) * per_si, unit))
    assert error_of(signal.segments[0], acceleration) < 0.002
    assert signal.sensors[0].unit == "m/s2"
    assert signal.median_acc == pytest.approx(9.84, abs=0.1)


def test_units_of_rotation_and_others() -> None:
    time_s = sample_times(100.0, 10.0)
    degrees = make_sensor(GYROSCOPE, "deg/s", time_s, rotation(time_s) * 180 / np.pi)
    signal = conditioned(Device("d", "p", (degrees,)), channels=GYROSCOPE, units=UNITS[3:])
    assert error_of(signal.segments[0], rotation) < 0.002
    assert signal.median_acc is None
    volts = make_sensor(("emg_1",), "mV", time_s, 1000 * acceleration(time_s)[:, :1])
    signal = conditioned(Device("d", "p", (volts,)), channels=("emg_1",), units=("V",))
    assert error_of(signal.segments[0], lambda t: acceleration(t)[:, :1]) < 0.002
    assert all(UNIT_FACTORS[si] == (si, 1.0) for si, _ in UNIT_FACTORS.values())


@pytest.mark.parametrize(
    ("unit", "message"), [("furlong", "unknown unit furlong"), ("deg/s", "acc_x of the windows")]
)
def test_wrong_units_are_refused(unit: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        only_acc(accelerometer(sample_times(100.0, 1.0), unit=unit))
    assert "device wrist, sensor acc_x acc_y acc_z" in str(caught.value)


def test_rectification_comes_after_conversion_and_before_all_else() -> None:
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    offset = np.array([0.1, -0.2, 0.3])
    time_s = sample_times(100.0, 10.0)
    raw = ((acceleration(time_s) - offset) @ np.linalg.inv(turn)) / 9.80665
    device = accelerometer(time_s, raw, "g", rectify=lambda values: values @ turn + offset)
    assert error_of(only_acc(device).segments[0], acceleration) < 0.002


def test_saturation_is_marked_where_it_reaches() -> None:
    time_s = sample_times(200.0, 10.0)
    values = acceleration(time_s)
    values[1000, 0] = 8 * 9.80665 * (1 - 2**-12)  # largest positive code of a signed converter
    values[1200, 1] = -8 * 9.80665
    values[1400, 2] = 0.99 * 8 * 9.80665
    device = accelerometer(time_s, values / 9.80665, "g", limit=8.0)
    signal = only_acc(device)
    (segment,) = signal.segments
    assert np.flatnonzero(segment.saturated).tolist() == [249, 250, 251, 299, 300, 301]
    assert signal.sensors[0].saturated == 2
    assert signal.sensors[0].limit == pytest.approx(8 * 9.80665)


def test_device_without_gyroscope() -> None:
    signal = conditioned(make_device(10.0, start_s=3.0, gyroscope=False))
    assert signal.missing == GYROSCOPE
    assert signal.segments == ()
    assert (signal.start_s, signal.end_s) == (3.0, pytest.approx(12.99))
    assert [one.samples for one in signal.sensors] == [1000]
    alone = only_acc(make_device(10.0, gyroscope=False))
    assert alone.missing == ()
    assert len(alone.segments) == 1


def test_two_sensors_for_one_channel_are_refused() -> None:
    device = make_device(1.0)
    twice = Device("imu", "chest", (*device.sensors, device.sensors[0]))
    with pytest.raises(ValueError, match="device imu has two sensors for acc_x"):
        conditioned(twice)


def test_sensors_that_never_overlap_have_no_segment() -> None:
    early, late = sample_times(100.0, 5.0), sample_times(100.0, 5.0, start_s=100.0)
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", early, acceleration(early)),
        make_sensor(GYROSCOPE, "rad/s", late, rotation(late)),
    )
    signal = conditioned(Device("d", "p", sensors))
    assert signal.segments == ()
    assert signal.start_s > signal.end_s


@pytest.mark.parametrize("what", ["nothing", "no time", "NaN", "milliseconds"])
def test_no_usable_sample(what: str) -> None:
    time_s = sample_times(100.0, 0.0 if what == "nothing" else 1.0, start_s=1.7e9)
    values = acceleration(time_s)
    if what == "no time":
        time_s[:] = np.nan
    elif what == "NaN":
        values[:, 2] = np.nan
    elif what == "milliseconds":
        time_s *= 1000
    with pytest.raises(ValueError, match="device wrist, sensor acc_x acc_y acc_z: none of its"):
        only_acc(accelerometer(time_s, values))


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    time_s = sample_times(200.0, 60.0, jitter=0.1)
    values = np.random.default_rng(0).standard_normal((len(time_s), 3))
    whole = only_acc(accelerometer(time_s, values))
    monkeypatch.setattr(signal_module, "BLOCK_ROWS", 700)
    blocks = only_acc(accelerometer(time_s, values, chunk=123))
    assert whole.segments[0].start == blocks.segments[0].start
    difference = whole.segments[0].values - blocks.segments[0].values
    assert np.abs(difference).max() < 1e-5


def test_same_samples_give_the_same_bytes_whatever_their_chunks() -> None:
    time_s = sample_times(200.0, 30.0)
    one = only_acc(accelerometer(time_s, chunk=17)).segments[0].values
    other = only_acc(accelerometer(time_s, chunk=4000)).segments[0].values
    assert one.tobytes() == other.tobytes()


def test_memory_is_bounded() -> None:
    """Memory does not grow with the recording: 67 minutes at 500 Hz are 64 MB of rows."""
    script = textwrap.dedent("""
        import resource
        import numpy as np
        from shards.recording import ACCELEROMETER, Device, Samples, Sensor
        from shards.signal.condition import condition

        def chunk(start):
            time_s = np.arange(start, start + 200_000) / 500
            return Samples(time_s, np.ones((200_000, 3)) * np.sin(time_s)[:, None])

        def read(chunks):
            yield chunk(0)
            yield from map(chunk, range(400_000, 200_000 * chunks, 200_000))
            yield chunk(200_000)  # late, so that all is sorted

        def peak(chunks):
            sensor = Sensor(ACCELEROMETER, "m/s2", lambda: read(chunks))
            signal = condition(Device("imu", "chest", (sensor,)), channels=ACCELEROMETER,
                               units=("m/s2",) * 3, rate_hz=50.0)
            assert [s.values.shape for s in signal.segments] == [(3, 20_000 * chunks)]
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        print(peak(2), peak(10))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    short, long = (int(peak) for peak in done.stdout.split())
    assert (long - short) / (2**20 if sys.platform == "darwin" else 2**10) < 30
