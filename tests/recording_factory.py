"""Devices and recordings of analytic signals for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from primus_scale.sample import CHANNELS, UNITS
from shards.recording import ACCELEROMETER, GYROSCOPE, Device, Recording, Samples, Sensor
from shards.settings import IngestSettings

Signal = Callable[[np.ndarray], np.ndarray]
"""From times (n,) to values (n, c)."""


def sample_times(
    rate_hz: float,
    seconds: float,
    *,
    start_s: float = 0.0,
    jitter: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Increasing times; jitter: largest displacement, as a share of the spacing (below 0.5)."""
    count = round(seconds * rate_hz)
    moved = np.random.default_rng(seed).uniform(-jitter, jitter, count)
    return start_s + (np.arange(count) + moved) / rate_hz


def acceleration(time_s: np.ndarray) -> np.ndarray:
    """Gravity on z and a slow sway, in m/s2; the axes differ, none is ever at rest."""
    turn = 2 * np.pi * time_s
    return np.stack(
        [np.sin(0.7 * turn), 0.8 * np.cos(1.3 * turn), 9.8 + 0.5 * np.sin(2.1 * turn)], axis=1
    )


def rotation(time_s: np.ndarray) -> np.ndarray:
    """A wobble about three axes, in rad/s."""
    turn = 2 * np.pi * time_s
    return np.stack(
        [0.5 * np.sin(0.9 * turn), 0.4 * np.cos(1.7 * turn), 0.3 * np.sin(2.3 * turn)], axis=1
    )


def make_sensor(
    channels: Sequence[str],
    unit: str,
    time_s: np.ndarray,
    values: np.ndarray,
    *,
    chunk: int = 1000,
    **options: Any,
) -> Sensor:
    """A sensor that yields these samples in chunks. options: limit, rectify."""

    def read() -> Iterator[Samples]:
        for start in range(0, len(time_s), chunk):
            yield Samples(time_s[start : start + chunk], values[start : start + chunk])

    return Sensor(tuple(channels), unit, read, **options)


def make_device(
    seconds: float = 60.0,
    *,
    name: str = "imu",
    placement: str = "chest",
    rate_hz: float = 100.0,
    start_s: float = 0.0,
    gyroscope: bool = True,
    jitter: float = 0.0,
    signals: tuple[Signal, Signal] = (acceleration, rotation),
) -> Device:
    """A device of an accelerometer and, if asked, a gyroscope, in SI units."""
    time_s = sample_times(rate_hz, seconds, start_s=start_s, jitter=jitter)
    sensors = [make_sensor(ACCELEROMETER, "m/s2", time_s, signals[0](time_s))]
    if gyroscope:
        sensors.append(make_sensor(GYROSCOPE, "rad/s", time_s, signals[1](time_s)))
    return Device(name, placement, tuple(sensors), nominal_rate_hz=rate_hz)


def make_recording(
    seconds: float = 60.0, *, name: str = "recording", person: str = "someone", **parts: Any
) -> Recording:
    """A recording of one device. parts: other fields of ``Recording``."""
    devices = parts.pop("devices", None) or (make_device(seconds),)
    return Recording(dataset="analytic", name=name, person=person, devices=devices, **parts)


def make_settings(**changes: Any) -> IngestSettings:
    """Settings of IMU windows of 2 s at 50 Hz, one after the other."""
    defaults = {
        "channels": CHANNELS,
        "units": UNITS,
        "rate_hz": 50.0,
        "window_s": 2.0,
        "hop_s": 2.0,
    }
    return IngestSettings(**(defaults | changes))
