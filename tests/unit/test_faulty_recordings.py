"""Recordings with faults drawn at random: what is accepted follows the known motion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from primus_scale.sample import CHANNELS, UNITS
from shards.ingest.windows import RecordingWindows
from shards.recording import ACCELEROMETER, GYROSCOPE, Device, Recording
from shards.settings import IngestSettings
from tests.cases import error_of, known_motion
from tests.recording_factory import make_sensor

SECONDS = 31.0
SETTINGS = IngestSettings(CHANNELS, UNITS, rate_hz=50.0, window_s=5.0, hop_s=5.0)

Rows = tuple[np.ndarray, np.ndarray]  # times (n,), values (n, 6)
Fault = Callable[[Rows, np.random.Generator], Rows]


def packets(rows: Rows, rng: np.random.Generator) -> Rows:
    """Samples of a packet share the time of its first, or of its last; some packets are lost."""
    time_s, values = rows
    size = int(rng.integers(3, 30))
    packet = np.arange(len(time_s)) // size
    edge = packet * size + (size - 1) * int(rng.integers(2))
    kept = ~np.isin(packet, rng.integers(2, packet[-1], int(rng.integers(4))))
    return time_s[np.minimum(edge, len(time_s) - 1)][kept], values[kept]


def uneven_packets(rows: Rows, rng: np.random.Generator) -> Rows:
    time_s, values = rows
    sizes = rng.integers(5, 15, len(time_s))
    ends = np.minimum(np.cumsum(sizes), len(time_s))
    packet = np.searchsorted(ends, np.arange(len(time_s)), side="right")
    begin = np.concatenate([[0], ends])[packet]
    return time_s[begin], values


def coarse_times(rows: Rows, rng: np.random.Generator) -> Rows:
    """Times cut or rounded to steps."""
    time_s, values = rows
    step_s = rng.choice([0.01, 0.1, 0.5, 1.0])
    whole = rng.choice([np.floor, np.round])
    return whole(np.round(time_s / step_s, 9)) * step_s, values


def lost_rows(rows: Rows, rng: np.random.Generator) -> Rows:
    time_s, values = rows
    kept = rng.random(len(time_s)) > rng.uniform(0, 0.03)
    hole = rng.uniform(0, SECONDS)
    kept &= (time_s < hole) | (time_s > hole + rng.uniform(0, 2))
    return time_s[kept], values[kept]


def asleep(rows: Rows, rng: np.random.Generator) -> Rows:
    """Zeros, or one value held, for a while."""
    time_s, values = rows[0], rows[1].copy()
    start = int(rng.integers(20, len(values) // 2))
    stop = start + int(rng.integers(5, len(values) // 3))
    sensor = slice(0, 3) if rng.integers(2) else slice(3, 6)
    values[start:stop, sensor] = values[start, sensor] if rng.integers(2) else 0.0
    return time_s, values


def spikes(rows: Rows, rng: np.random.Generator) -> Rows:
    time_s, values = rows[0], rows[1].copy()
    for row in range(40, len(values) - 40, int(rng.integers(200, 600))):
        values[row, int(rng.integers(6))] += rng.choice([-1, 1]) * rng.uniform(15, 60)
    return time_s, values


def left_over(rows: Rows, rng: np.random.Generator) -> Rows:
    time_s, values = rows[0], rows[1].copy()
    values[: int(rng.integers(1, 6)), 3:] = rng.uniform(13, 16)
    return time_s, values


def wrong_unit(rows: Rows, rng: np.random.Generator) -> Rows:
    """Acceleration in g or mg, or a gyroscope in deg/s that turns too fast for any device."""
    time_s, values = rows[0], rows[1].copy()
    factors = ([1 / 9.81, 1], [102.0, 1], [1, 180.0])[int(rng.integers(3))]
    values *= np.repeat(factors, 3)
    return time_s, values


def wrong_time_unit(rows: Rows, rng: np.random.Generator) -> Rows:
    return rows[0] * 10.0 ** rng.choice([-6, -3, 3, 6]), rows[1]


def thinned(rows: Rows, rng: np.random.Generator) -> Rows:
    """A rate far below that of the windows."""
    every = int(np.ceil(len(rows[0]) / SECONDS / 15)) + int(rng.integers(30))
    return rows[0][::every], rows[1][::every]


def nan_rows(rows: Rows, rng: np.random.Generator) -> Rows:
    time_s, values = rows[0].copy(), rows[1].copy()
    values[rng.integers(0, len(values), 8), rng.integers(6)] = np.nan
    time_s[rng.integers(0, len(values), 3)] = np.nan
    return time_s, values


def repeated_rows(rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows written twice, and a part sent once more."""
    number = np.arange(len(rows[0]))
    number = np.sort(np.append(number, rng.choice(number, len(number) // 5)))
    part = slice(*np.sort(rng.integers(0, len(rows[0]), 2)).tolist())
    number = np.append(number, np.arange(len(rows[0]))[part])
    return rows[0][number], rows[1][number]


def out_of_order(rows: Rows, rng: np.random.Generator) -> Rows:
    order = np.argsort(np.arange(len(rows[0])) + rng.uniform(0, 5, len(rows[0])), kind="stable")
    return rows[0][order], rows[1][order]


FAULTS: tuple[Fault, ...] = (
    *(packets, uneven_packets, coarse_times, lost_rows, asleep, spikes, left_over, wrong_unit),
    *(wrong_time_unit, thinned, nan_rows, repeated_rows, out_of_order),
)


def ingest(rows: Rows) -> tuple[list[float] | str, RecordingWindows | None]:
    """Errors of the windows that are made of a device's rows, or why there are none."""
    time_s, values = rows
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", time_s, values[:, :3]),
        make_sensor(GYROSCOPE, "rad/s", time_s, values[:, 3:]),
    )
    recording = Recording("drawn", "one", "someone", (Device("watch", "left wrist", sensors),))
    try:
        made = RecordingWindows(recording, SETTINGS)
    except ValueError as error:
        return str(error), None
    return [error_of(window.imu, window.meta.start_s) for window in made], made


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fault=st.sampled_from(FAULTS),
    other=st.sampled_from((None, nan_rows, repeated_rows, out_of_order)),
    rate_hz=st.sampled_from((50.0, 52.0, 64.0, 100.0)),
    seed=st.integers(0, 2**16),
)
def test_what_is_accepted_follows_the_motion(
    fault: Fault, other: Fault | None, rate_hz: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    rows = fault((time_s, np.concatenate(known_motion()(time_s), axis=1)), rng)
    if other is not None and fault not in (packets, uneven_packets, coarse_times):
        rows = other(rows, rng)  # samples that share a time must be in order
    errors, made = ingest(rows)
    if made is None:
        assert "device watch, sensor" in errors
        return
    assert max(errors, default=0.0) < 0.05
    (device,) = made.report.devices
    if fault in (wrong_unit, wrong_time_unit, thinned):
        assert not errors
    assert len(errors) + sum(device.refused.values()) <= SECONDS / 5


def set_clock(by_s: float, at_s: float, rate_hz: float) -> None:
    """Check a recording whose clock is set by ``by_s`` at ``at_s``, window by window."""
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    values = np.concatenate(known_motion()(time_s), axis=1)
    told_s = time_s + np.where(time_s < at_s, 0, by_s)
    _, made = ingest((told_s, values))
    assert made is not None
    last_before_s = time_s[time_s < at_s][-1]
    for window in made:
        start_s, end_s = window.meta.start_s, window.meta.start_s + 4.98
        before = end_s <= last_before_s
        assert before or start_s >= min(last_before_s, at_s + by_s) - 1e-6
        late_s = 0.0 if before else -by_s
        assert error_of(window.imu, start_s, motion_late_s=late_s) < 0.05
    refused = made.report.devices[0].refused
    assert refused.get("clock step", 0) + refused.get("gap", 0) >= 1


@settings(max_examples=12, derandomize=True, deadline=None)
@given(
    by_s=st.sampled_from((-7.0, -0.5, -0.11, -0.033, 0.013, 0.3, 2.0)),
    at_s=st.floats(9.0, 18.0),
    rate_hz=st.sampled_from((50.0, 100.0, 200.0)),
)
def test_no_window_lies_across_a_clock_that_was_set(
    by_s: float, at_s: float, rate_hz: float
) -> None:
    set_clock(by_s, at_s, rate_hz)


def test_clean_recordings_are_accepted_whole() -> None:
    for rate_hz in (20.0, 31.25, 50.0, 100.0, 200.0):
        time_s = 1.7e9 + np.arange(round(SECONDS * rate_hz)) / rate_hz
        values = np.concatenate(known_motion()(time_s), axis=1)
        errors, _ = ingest((time_s, values))
        assert len(errors) >= 5
        assert max(errors) < 0.05


@pytest.mark.parametrize(
    ("rate_hz", "step_s"),
    [(20, 0.02), (20, 0.04), (25, 0.016), (50, 0.015), (52, 0.004), (64, 0.016), (31.25, 1 / 60)],
)
@pytest.mark.parametrize("whole", [np.floor, np.round])
def test_times_cut_to_steps_of_any_length_are_put_on_one_clock(
    rate_hz: float, step_s: float, whole: Callable[[np.ndarray], np.ndarray]
) -> None:
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    values = np.concatenate(known_motion()(time_s), axis=1)
    told_s = np.round(whole(np.round(time_s / step_s, 9)) * step_s, 3)
    errors, made = ingest((told_s, values))
    assert made is not None
    assert len(errors) == 6
    assert max(errors) < 0.05
    assert "put on one clock" in made.report.notes[0]


@pytest.mark.parametrize("begin_s", [0.0, 1.7e9 + 0.02])
@pytest.mark.parametrize("every", [10, 40, 0])
def test_samples_lost_from_a_clock_of_even_steps_leave_its_times(
    begin_s: float, every: int
) -> None:
    """As by a recorder that loses one whenever it saves: a slower clock would fit the times too."""
    time_s = begin_s + np.arange(1550) / 50
    values = np.concatenate(known_motion()(time_s), axis=1)
    lost = (
        np.arange(len(time_s)) % every == 5
        if every
        else np.random.default_rng(0).random(1550) < 0.03
    )
    errors, made = ingest((time_s[~lost], values[~lost]))
    assert made is not None
    assert not made.report.notes
    assert len(errors) >= 5
    assert max(errors) < 0.05


@pytest.mark.parametrize("begin_s", [0.0, 1.7e9 + 0.02])
def test_times_that_jitter_stay_as_they_are(begin_s: float) -> None:
    for rate_hz in (20.0, 50.0, 100.0):
        even_s = begin_s + np.arange(round(SECONDS * rate_hz)) / rate_hz
        jitter_s = np.random.default_rng(1).normal(0, 0.12 / rate_hz, len(even_s))
        time_s = np.round(even_s + jitter_s, 3)
        errors, made = ingest((time_s, np.concatenate(known_motion()(time_s), axis=1)))
        assert made is not None
        assert not made.report.notes
        assert len(errors) >= 5
        assert max(errors) < 0.05
