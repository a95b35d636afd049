"""Samples of a sensor that a ``recording.yaml`` describes, from CSV, Parquet or npy, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from shards.files.source import Source
from shards.files.tables import read_table
from shards.readers.recording_yaml import SensorFile
from shards.readers.rows import CHUNK_ROWS
from shards.recording import Samples, Sensor

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@contextmanager
def told(where: str) -> Iterator[None]:
    """Put before a ValueError of a file the place where the file is named."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def open_sensor(
    source: Source, path: str, sensor: SensorFile, where: str, stack: ExitStack
) -> Sensor:
    """The sensor in the file at ``path``, whose head is read at once to see that it fits.

    A copy of a remote npy file lasts as long as ``stack``; files are opened anew at each read.
    ValueError naming ``where`` (description and field), the file and the next step where the file
    is empty, truncated or of another format, a column is missing, or text stands among numbers.
    """
    if sensor.is_array:
        with told(where):
            local = stack.enter_context(source.local(path))
            rows = _checked_rows(source.locate(path), local, sensor)
        read = partial(_array_samples, local, rows, sensor)
    else:
        read = partial(_table_samples, source, path, sensor, where)
        next(read())
    return Sensor(tuple(sensor.columns), sensor.unit, read, sensor.limit)


def _table_samples(source: Source, path: str, sensor: SensorFile, where: str) -> Iterator[Samples]:
    names = list(sensor.columns.values())
    wanted = [*names, sensor.time.column] if sensor.time else names
    row = 0
    with told(where):
        for piece in read_table(source, path, columns=wanted, delimiter=sensor.delimiter):
            values = np.stack([piece[name] for name in names], axis=1)
            column = piece[sensor.time.column] if sensor.time else None
            yield Samples(_times(sensor, column, row, len(values)), values)
            row += len(values)


def _array_samples(path: Path, rows: int, sensor: SensorFile) -> Iterator[Samples]:
    for row in range(0, rows, CHUNK_ROWS):
        yield _array_chunk(path, row, sensor)


def _array_chunk(path: Path, row: int, sensor: SensorFile) -> Samples:
    """Rows from ``row`` on, from a map of their own: pages count as memory while a map lasts."""
    rows = np.lib.format.open_memmap(path, mode="r")[row : row + CHUNK_ROWS]
    column = rows[:, int(sensor.time.column)] if sensor.time else None
    columns = [int(column) for column in sensor.columns.values()]
    return Samples(_times(sensor, column, row, len(rows)), rows[:, columns].astype(np.float64))


def _times(sensor: SensorFile, column: np.ndarray | None, row: int, rows: int) -> np.ndarray:
    """Seconds on the recording's clock of ``rows`` rows, the first of which is ``row``."""
    if sensor.time is None or column is None:
        assert sensor.rate_hz is not None
        return (sensor.start_s or 0.0) + (row + np.arange(rows)) / sensor.rate_hz
    return column.astype(np.float64) * _SECONDS[sensor.time.unit] + sensor.time.offset_s


def _checked_rows(where: str, path: Path, sensor: SensorFile) -> int:
    """How many rows the npy file has; ValueError where it is not one of numbers ``(n, c)``."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # runs no pickle
    except ValueError as error:
        raise ValueError(
            f"{where} is no whole npy file of numbers ({error}); save it again with numpy.save"
        ) from None
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{where} holds {array.dtype} of shape {array.shape}; save numbers of shape "
            "(rows, columns)"
        )
    if not len(array):
        raise ValueError(f"{where} has no row; save it again, or leave the sensor out")
    used = [*sensor.columns.values(), *([sensor.time.column] if sensor.time else [])]
    last = max(map(int, used))
    if last >= array.shape[1]:
        raise ValueError(
            f"{where} has no column {last}: its columns are 0 to {array.shape[1] - 1}; correct the "
            "number"
        )
    return len(array)
