"""Gates of sensors and devices: each flags or refuses what it should, and lets good data pass."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from primus_scale.signal.plausible import explain_implausible
from shards.build_commands import add_build
from shards.gate_flags import GATE_FLAGS
from shards.ingest.windows import RecordingWindows
from shards.recording import ACCELEROMETER, GYROSCOPE, Device, LabelSpan, Recording
from shards.report import DeviceReport
from shards.settings import SensorLimits
from shards.signal.device_gates import DEVICE_GATES, LABEL_GATE
from shards.signal.sensor_gates import SENSOR_GATES
from tests.recording_factory import (
    acceleration,
    make_recording,
    make_sensor,
    make_settings,
    rotation,
    sample_times,
)

G = 9.80665


def report_of(
    acc: np.ndarray,
    gyr: np.ndarray,
    time_s: np.ndarray,
    nominal_hz: float | None = None,
    **settings: Any,
) -> DeviceReport:
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", time_s, acc),
        make_sensor(GYROSCOPE, "rad/s", time_s, gyr),
    )
    device = Device("watch", "wrist", sensors, nominal_hz)
    recording = make_recording(devices=(device,))
    return RecordingWindows(recording, make_settings(**settings)).report.devices[0]


def texts(report: DeviceReport) -> dict[str, str]:
    return {finding.gate: finding.text for finding in report.findings}


def turning(rng: np.random.Generator, seconds: float = 60.0) -> tuple[np.ndarray, ...]:
    """A device turned slowly about changing axes: times, what it feels, how it turns (rad/s)."""
    time_s = sample_times(100.0, seconds)
    phases = rng.uniform(0, 6, 3)
    rates = np.stack([np.sin(0.5 * time_s / (1 + n) + phases[n]) for n in range(3)], axis=1)
    up = np.array([0.2, -0.3, 0.93])
    felt = np.empty((len(time_s), 3))
    for row, rate in enumerate(rates):  # du/dt = -w x u, in small steps
        felt[row] = up
        middle = up - np.cross(rate, up) / 200
        up = up - np.cross(rate, middle) / 100
        up /= np.linalg.norm(up)
    return time_s, G * felt + 0.02 * rng.standard_normal(felt.shape), rates


def test_a_turning_device_agrees_with_its_gyroscope() -> None:
    time_s, acc, gyr = turning(np.random.default_rng(0))
    report = report_of(acc, gyr, time_s, 100.0)
    assert report.tilt is not None
    assert report.tilt.slope == pytest.approx(1.0, abs=0.08)
    assert report.tilt.axes == ("+x", "+y", "+z")
    assert report.tilt.correlation > 0.98
    assert report.findings == ()
    assert report.gravity == pytest.approx(G, abs=0.3)


@pytest.mark.parametrize(
    ("factor", "slope", "guess"),
    [(np.pi / 180, 57.3, "rad/s, declared as deg/s"), (180 / np.pi, 1 / 57.3, "deg/s, declared")],
)
def test_a_wrong_unit_of_the_gyroscope_shows_in_gravitys_turning(
    factor: float, slope: float, guess: str
) -> None:
    time_s, acc, gyr = turning(np.random.default_rng(1))
    report = report_of(acc, gyr * factor, time_s)
    assert report.tilt is not None
    assert report.tilt.slope == pytest.approx(slope, rel=0.08)
    told = texts(report)["turning of gravity"]
    assert guess in told
    assert "--tilt-factor" in told


@pytest.mark.parametrize(
    ("change", "axes"),
    [
        (lambda gyr: -gyr, ("-x", "-y", "-z")),
        (lambda gyr: gyr * (1, -1, 1), ("+x", "-y", "+z")),
        (lambda gyr: gyr[:, [1, 0, 2]], ("+y", "+x", "+z")),
        (lambda gyr: gyr[:, [2, 0, 1]], ("+y", "+z", "+x")),
    ],
)
def test_wrong_axes_of_the_gyroscope_are_named(
    change: Callable[[np.ndarray], np.ndarray], axes: tuple[str, str, str]
) -> None:
    time_s, acc, gyr = turning(np.random.default_rng(2), 120.0)
    report = report_of(acc, change(gyr), time_s)
    assert report.tilt is not None
    assert report.tilt.axes == axes
    if report.tilt.correlation < 0.5:
        assert ", ".join(axes) in texts(report)["axes of the gyroscope"]


def test_vigorous_exercise_passes_the_gate_of_gravity() -> None:
    """The median of |a| is 20 m/s2 where somebody jumps; the still seconds show gravity."""
    time_s = sample_times(100.0, 60.0)
    acc = acceleration(time_s)
    acc[:, 2] += np.where(time_s > 15, 25 * np.sin(12 * time_s) ** 2, 0)
    report = report_of(acc, rotation(time_s), time_s)
    assert report.median_acc is not None and report.median_acc > 12
    assert report.gravity == pytest.approx(9.8, abs=0.5)
    assert (report.windows, dict(report.refused)) == (30, {})
    report = report_of(acc[1500:], rotation(time_s)[1500:], time_s[1500:])
    assert report.gravity is None, "never still"
    assert dict(report.refused) == {}


def test_a_device_that_is_never_still_shows_gravity_in_the_mean_of_seconds() -> None:
    """Exchanged sensors, and acceleration without gravity, of which the median is plausible."""
    time_s = sample_times(100.0, 60.0)
    rng = np.random.default_rng(3)
    acc, gyr = acceleration(time_s), rotation(time_s)
    moving = rng.normal(0, 3, acc.shape) * np.array([1.0, 1.0, 1.2])
    for values, other in ((moving, gyr), (40 * gyr * rng.choice([-1, 1], gyr.shape), acc)):
        report = report_of(values, other, time_s)
        assert report.gravity is None, "never still"
        assert report.median_acc is not None and report.mean_acc is not None
        assert 2.0 < report.median_acc < 48.0
        expected = values.reshape(12, 500, 3).mean(axis=1)
        assert report.mean_acc == pytest.approx(
            float(np.median(np.linalg.norm(expected, axis=1))), rel=0.01
        )
        text = texts(report)["gravity"]
        assert "gravity is not in it; are the columns" in text
        assert text.endswith("(--acc-range)")
        assert set(report.refused) == {"implausible gravity"}
        assert report.windows == 0
        assert explain_implausible(values, other, 100.0, ("m/s2", "rad/s"), len(values))
        kept = report_of(values, other, time_s, acc_range=(0.0, 40.0))
        assert dict(kept.refused) == {}
    assert dict(report_of(moving + np.array([0, 0, G]), gyr, time_s).refused) == {}


@pytest.mark.parametrize("factor", [1 / G, 0.7, 1.4, 1000 / G])
def test_implausible_gravity_is_refused_with_figure_and_flag(factor: float) -> None:
    time_s = sample_times(100.0, 20.0)
    report = report_of(acceleration(time_s) * factor, rotation(time_s), time_s)
    assert set(report.refused) == {"implausible gravity"}
    told = texts(report)["gravity"]
    assert f"gravity is {report.gravity:.4g} m/s2" in told
    assert report.gravity == pytest.approx(9.8 * factor, rel=0.01)
    assert "outside 8 to 12" in told
    assert "--acc-range" in told


def test_gravity_in_any_unit_that_is_never_still() -> None:
    time_s = sample_times(100.0, 20.0)
    wild = np.stack([30 * np.sin(20 * time_s + phase) for phase in (0, 1, 2)], axis=1)
    wild += np.array([0, 0, G])
    assert "gravity" not in texts(report_of(wild, rotation(time_s), time_s))
    assert "never still" in texts(report_of(wild * 102, rotation(time_s), time_s))["gravity"]


def test_the_rate_is_the_mean_over_the_segments() -> None:
    """80 Hz in whole ms has spacings of 12 and 13 ms; a pause is no part of it."""
    time_s = np.round(sample_times(80.0, 60.0), 3)
    kept = (time_s < 20) | (time_s > 31)
    report = report_of(acceleration(time_s)[kept], rotation(time_s)[kept], time_s[kept], 80.0)
    assert [sensor.rate_hz for sensor in report.sensors] == pytest.approx([80.0, 80.0], rel=1e-3)
    assert "nominal rate" not in texts(report)
    report = report_of(acceleration(time_s), rotation(time_s), time_s, 100.0)
    assert "20 % off its nominal 100 Hz" in texts(report)["nominal rate"]


def test_refused_windows_are_told_by_label() -> None:
    time_s = sample_times(100.0, 40.0)
    kept = np.ones(len(time_s), bool)
    for second in range(21, 40, 3):
        kept &= ~((time_s > second) & (time_s < second + 0.5))
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", time_s[kept], acceleration(time_s[kept])),
        make_sensor(GYROSCOPE, "rad/s", time_s, rotation(time_s)),
    )
    labels = (LabelSpan(0, 20, "sitting"), LabelSpan(20, 40, "running"))
    recording = Recording("d", "r", "p", (Device("watch", "wrist", sensors),), labels=labels)
    (report,) = RecordingWindows(recording, make_settings()).report.devices
    assert report.planned_by_label == {"running": 10, "sitting": 10}
    assert set(report.refused_by_label) == {"running"}
    told = texts(report)["refused windows"]
    assert "label running" in told
    assert "gap" in told
    assert "--max-refused" in told


def test_every_gate_has_a_setting_and_a_flag() -> None:
    gates = (*SENSOR_GATES, *DEVICE_GATES, LABEL_GATE)
    parser = argparse.ArgumentParser()
    add_build(parser.add_subparsers())
    flags = {flag for flag, *_ in GATE_FLAGS} | {"--acc-range", "--shared-times"}
    assert {gate.setting for gate in gates} <= {one.name for one in fields(SensorLimits)}
    assert {gate.flag for gate in gates} <= flags
    assert {"--" + one.name.replace("_", "-") for one in fields(SensorLimits)} == flags


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_rate_share": 1.5}, "min_rate_share must lie in 0..1"),
        ({"max_rotation": 10.0}, "high_rotation must not be above max_rotation"),
        ({"shared_times": "second"}, "shared_times must be one of first, middle, last"),
        ({"tilt_factor": 1.0}, "tilt_factor must be above 1"),
        ({"max_clock_steps": -1}, "max_clock_steps must not be negative"),
        ({"acc_range": (12.0, 8.0)}, "acc_range must be the lower"),
        ({"repeat_s": 0.0}, "repeat_s must be positive"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)
