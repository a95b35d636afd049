"""Writes folders that ``recording.yaml`` files describe, and reads them back, for tests."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shards.readers import create_reader
from shards.recording import Recording

ACC = {"acc_x": "ax", "acc_y": "ay", "acc_z": "az"}
NUMBERED = {"acc_x": "0", "acc_y": "1", "acc_z": "2"}  # columns of npy files


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
