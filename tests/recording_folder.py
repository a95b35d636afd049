"""Folders of synthetic recordings for the reader ``folder``: analytic motion and a little noise."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.recording_factory import acceleration, rotation, sample_times

DESCRIPTION = """
dataset: synthetic
recordings: "{person}/*"
devices:
  - name: watch
    placement: wrist
    rate_hz: 100
    sensors:
      - file: imu.npy
        columns: {acc_x: 1, acc_y: 2, acc_z: 3}
        unit: m/s2
        time: {column: 0, unit: s}
      - file: imu.npy
        columns: {gyr_x: 4, gyr_y: 5, gyr_z: 6}
        unit: rad/s
        time: {column: 0, unit: s}
"""


def write_recordings(root: Path, numbers: Iterable[int], seconds: float = 12.0) -> None:
    """Recordings of an IMU at 100 Hz, of five people, each of another time and noise."""
    for number in numbers:
        folder = root / f"person {number % 5}" / f"walk {number:03d}"
        folder.mkdir(parents=True)
        time_s = sample_times(100.0, seconds, start_s=float(number))
        noise = np.random.default_rng(number).normal(0, 0.01, (len(time_s), 6))
        imu = np.concatenate([acceleration(time_s), rotation(time_s)], axis=1) + noise
        np.save(folder / "imu.npy", np.concatenate([time_s[:, None], imu], axis=1))
    (root / "recording.yaml").write_text(DESCRIPTION)
