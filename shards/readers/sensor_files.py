"""Samples of a sensor that a ``recording.yaml`` describes, from text, Parquet or npy, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from primus_scale.storage.foreign import decoding
from shards.files.source import Source
from shards.readers.rows import CHUNK_ROWS
from shards.readers.table_yaml import SensorFile
from shards.readers.timed_rows import ClockOrigin, FirstTime, array_times, prefix_errors, timed_rows
from shards.recording import Samples, Sensor


def open_sensor(
    source: Source,
    path: str,
    sensor: SensorFile,
    where: str,
    clock: tuple[FirstTime, ClockOrigin],
    stack: ExitStack,
) -> Sensor:
    """The sensor in the file at ``path``, whose head is read at once to see that it fits.

    clock: what its times are counted on, and where the recording's begins. A copy of a remote npy
    file lasts as long as ``stack``; files are opened anew at each read. ValueError naming ``where``
    (description and field), the file and the next step where the file is empty, truncated or of
    another format, a column is missing, or text stands among numbers.
    """
    if sensor.is_array:
        with prefix_errors(where):
            local = stack.enter_context(source.local(path))
            rows = _checked_rows(source.locate(path), local, sensor)
        read = partial(_array_samples, local, rows, sensor)
    else:
        read = partial(_table_samples, source, path, sensor, where, clock)
        next(read())
    scale = sensor.unit
    limit = None if sensor.limit is None else sensor.limit * scale.factor
    time = sensor.time
    told_clock = f"column {time.column} of {path}, in {time.unit}" if time else ""
    return Sensor(tuple(sensor.columns), scale.unit, read, limit, clock=told_clock)


def _table_samples(
    source: Source, path: str, sensor: SensorFile, where: str, clock: tuple[FirstTime, ClockOrigin]
) -> Iterator[Samples]:
    names = list(sensor.columns.values())
    for time_s, piece in timed_rows(source, path, sensor, where, *clock, columns=names):
        values = np.stack([piece[name] for name in names], axis=1)
        yield Samples(time_s, _scaled(values, sensor))


def _scaled(values: np.ndarray, sensor: SensorFile) -> np.ndarray:
    """Raw counts in the unit of their scale; other numbers unchanged."""
    scale = sensor.unit
    return (values - scale.zero) * scale.factor if scale.raw else values


def _array_samples(path: Path, rows: int, sensor: SensorFile) -> Iterator[Samples]:
    for row in range(0, rows, CHUNK_ROWS):
        yield _array_chunk(path, row, sensor)


def _array_chunk(path: Path, row: int, sensor: SensorFile) -> Samples:
    """Rows from ``row`` on, from a new memory map: the pages of an open map count as memory."""
    rows = np.lib.format.open_memmap(path, mode="r")[row : row + CHUNK_ROWS]
    column = rows[:, int(sensor.time.columns[0])] if sensor.time else None
    values = rows[:, [int(column) for column in sensor.columns.values()]].astype(np.float64)
    return Samples(array_times(sensor, column, row, len(rows)), _scaled(values, sensor))


def _checked_rows(where: str, path: Path, sensor: SensorFile) -> int:
    """Number of rows of the npy file; ValueError where it does not hold numbers ``(n, c)``."""
    advice = "it is not a complete npy file of numbers; save it again with numpy.save"
    with decoding(where, advice=advice, in_memory=True):
        array = np.lib.format.open_memmap(path, mode="r")  # runs no pickle
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{where} holds {array.dtype} of shape {array.shape}; save numbers of shape "
            "(rows, columns)"
        )
    if not len(array):
        raise ValueError(f"{where} has no row; save it again, or leave the sensor out")
    last = max(map(int, sensor.used()))
    if last >= array.shape[1]:
        raise ValueError(
            f"{where} has no column {last}: its columns are 0 to {array.shape[1] - 1}; correct the "
            "number"
        )
    return len(array)
