"""Reads what a reader yields, whole, for tests to compare with what they wrote."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from primus_scale.data.record import decode_window
from primus_scale.sample import Window
from shards.readers.base import Reader
from shards.recording import Device, Recording, RecordingRef, Sensor


def read_sensor(sensor: Sensor) -> tuple[np.ndarray, np.ndarray]:
    """All times ``(n,)`` and values ``(n, c)`` of a sensor, in file order."""
    chunks = list(sensor.read())
    for chunk in chunks:
        assert chunk.values.shape == (len(chunk.time_s), len(sensor.channels))
    return (
        np.concatenate([chunk.time_s for chunk in chunks]),
        np.concatenate([chunk.values for chunk in chunks]),
    )


def sensor_of(device: Device, first_channel: str) -> Sensor:
    """The sensor of a device that begins with this channel."""
    return next(sensor for sensor in device.sensors if sensor.channels[0] == first_channel)


def find_ref(reader: Reader, name: str) -> RecordingRef:
    """The recording of this name in the reader's listing."""
    return next(ref for ref in reader.recordings() if ref.name == name)


def spans(recording: Recording) -> list[tuple[float, float, str]]:
    """Label spans with times rounded to the microsecond."""
    return [(round(s, 6), round(e, 6), label) for s, e, label in recording.labels]


def windows_of(folder: Path) -> list[Window]:
    """The windows in the shards of a folder, by recording and start."""
    windows = []
    for path in sorted(folder.glob("*.tar")):
        records: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                stream = tar.extractfile(member)
                assert stream is not None
                records.setdefault(key, {})[name] = stream.read()
        windows += [decode_window(members) for members in records.values()]
    return sorted(windows, key=lambda window: (window.meta.recording, window.meta.start_s))
