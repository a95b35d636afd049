"""Writes folders that ``recording.yaml`` files describe, and reads them back, for tests."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from primus_scale.cli import main
from shards.readers import create_reader
from shards.recording import Recording
from tests.cases import error_of, known_motion
from tests.reading import read_sensor, windows_of

ACC = {"acc_x": "ax", "acc_y": "ay", "acc_z": "az"}
NUMBERED = {"acc_x": "0", "acc_y": "1", "acc_z": "2"}  # columns of npy files


GYR = {"gyr_x": "gx", "gyr_y": "gy", "gyr_z": "gz"}
RATE_HZ = 50.0


def write_csv(path: Path, columns: dict[str, np.ndarray], delimiter: str = ",") -> None:
    table = np.stack(list(columns.values()), axis=1).tolist()
    rows = [delimiter.join(columns), *(delimiter.join(map(repr, row)) for row in table)]
    path.write_text("\n".join(rows) + "\n")


def sensor(**changed: Any) -> dict[str, Any]:
    """A sensor of ``wrist.csv`` at 50 Hz; None takes a key out."""
    keys = {"file": "wrist.csv", "columns": ACC, "unit": "g", "rate_hz": 50} | changed
    return {key: value for key, value in keys.items() if value is not None}


def description(*sensors: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A recording of one device with these sensors; None takes a key out."""
    device = {"name": "watch", "placement": "wrist", "sensors": list(sensors or [sensor()])}
    keys = {"person": "anna", "devices": [device]} | changed
    return {key: value for key, value in keys.items() if value is not None}


def describe(folder: Path, keys: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recording.yaml").write_text(yaml.safe_dump(keys, allow_unicode=True))


def read(source: Path | str, use: Callable[[Recording], Any] = lambda recording: recording) -> Any:
    """What ``use`` makes of the only recording of the source."""
    reader = pickle.loads(pickle.dumps(create_reader("folder", str(source))))  # noqa: S301 (made here)
    (ref,) = reader.recordings()
    with reader.open(ref) as recording:
        return use(recording)


def motion(seconds: float = 32.0) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) and the six channels (n, 6) of the known motion, in SI units."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return time_s, np.concatenate(known_motion()(time_s), axis=1)


def described(**changed: Any) -> dict[str, Any]:
    """A recording of both sensors of one file; changes are of both."""
    keys = {"file": "w.csv", "rate_hz": None} | changed
    acc = sensor(columns=ACC, unit="m/s2", **keys)
    gyr = sensor(columns=GYR, unit="rad/s", **keys)
    return description(acc, gyr)


def text_table(
    times: list[str], values: np.ndarray, delimiter: str = ",", decimal: str = "."
) -> str:
    rows = [
        delimiter.join([time, *(f"{value:.6f}".replace(".", decimal) for value in row)])
        for time, row in zip(times, values.tolist(), strict=True)
    ]
    return "\n".join([delimiter.join(["t", *ACC.values(), *GYR.values()]), *rows]) + "\n"


def first_sensor(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of the first sensor of a recording."""
    return read_sensor(recording.devices[0].sensors[0])


def build(source: Path, out: Path, *flags: str) -> int:
    """Exit code of the command that builds the windows."""
    command = ["shards", "build", "folder", "--src", str(source), "--out", str(out)]
    return main([*command, "--workers", "1", *flags])


def errors(out: Path) -> list[float]:
    """Of every window in the shards against the known motion."""
    return [error_of(window.imu, window.meta.start_s) for window in windows_of(out)]
