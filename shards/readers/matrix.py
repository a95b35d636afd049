"""What readers share whose files are matrices: a row a moment, columns for all devices and labels.

class MhealthReader(MatrixReader):
    layout = MatrixLayout(columns=24, wearables=(Wearable("chest", "chest", acc=0),), label=23, ...)
rows = read_rows(source, "mHealth_subject1.log", layout)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from shards.files.source import Source
from shards.files.tables import read_matrix
from shards.readers.base import Reader
from shards.readers.rows import CHUNK_ROWS, label_spans
from shards.recording import (
    ACCELEROMETER,
    GYROSCOPE,
    Device,
    LabelSpan,
    Recording,
    RecordingRef,
    Samples,
    Sensor,
)


class Wearable(NamedTuple):
    """A device: places of the first of three columns of each sensor (the file's first is 0)."""

    name: str
    placement: str
    acc: int
    gyr: int | None = None


@dataclass(frozen=True)
class MatrixLayout:
    """How a data set's files are laid out; places of columns are counted from 0.

    activities: names of the codes in column ``label``, None for those that are no activity.
    time: column of the time in units of ``time_unit_s`` (None: rows are ``1 / rate_hz`` apart, the
    first at 0 s). acc_limit: full scale of the accelerometers in ``acc_unit``.
    """

    columns: int
    wearables: tuple[Wearable, ...]
    label: int
    activities: Mapping[int, str | None]
    rate_hz: float
    acc_unit: str
    gyr_unit: str
    acc_limit: float | None = None
    time: int | None = None
    time_unit_s: float = 1.0


class MatrixReader(Reader):
    """A reader of such files; a recording is one of them, of the ``person`` in its details.

    layout: of the files. sync: where their times come from.
    """

    layout: ClassVar[MatrixLayout]
    sync: ClassVar[str]

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording of all wearables, with its labels."""
        rows = read_rows(self.source, ref.files[0], self.layout)
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=f"{self.name}-{ref.details['person']}",
            devices=rows.devices,
            labels=rows.labels,
            sync=self.sync,
            notes=(*rows.notes, *self.doubts(rows.devices)),
        )

    def doubts(self, devices: tuple[Device, ...]) -> Iterable[str]:
        """Notes on what the data set's documentation leaves open."""
        return ()


class MatrixRows(NamedTuple):
    """What a file holds."""

    devices: tuple[Device, ...]
    labels: tuple[LabelSpan, ...]
    notes: tuple[str, ...]


def read_rows(source: Source, path: str, layout: MatrixLayout) -> MatrixRows:
    """Devices and labels of the file at ``path``; memory holds those of its columns that are used.

    A sensor with fewer than two rows of values (its radio failed) is left out and noted. Raises
    ValueError for a damaged file, for an activity code that is not known, and where no sensor is
    left. It names the file, and line and column where it can.
    """
    where = source.locate(path)
    firsts = [first for w in layout.wearables for first in (w.acc, w.gyr) if first is not None]
    clock = [] if layout.time is None else [layout.time]
    use = [layout.label, *clock, *(first + axis for first in firsts for axis in range(3))]
    values = read_matrix(source, path, layout.columns, use=use)
    time_s = values[:, 1] * layout.time_unit_s if clock else np.arange(len(values)) / layout.rate_hz
    xyz = {first: values[:, use.index(first) :][:, :3] for first in firsts}
    devices, notes = [], []
    for wearable in layout.wearables:
        sensors = []
        for kind, channels, first, unit, limit in (
            ("accelerometer", ACCELEROMETER, wearable.acc, layout.acc_unit, layout.acc_limit),
            ("gyroscope", GYROSCOPE, wearable.gyr, layout.gyr_unit, None),
        ):
            if first is None:
                continue
            if np.count_nonzero(np.isfinite(xyz[first]).all(axis=1)) < 2:
                notes.append(f"{kind} of {wearable.name} left out: it has no values")
                continue
            sensors.append(Sensor(channels, unit, partial(_samples, time_s, xyz[first]), limit))
        if sensors:
            name, placement = wearable.name, wearable.placement
            devices.append(Device(name, placement, tuple(sensors), layout.rate_hz))
    if not devices:
        raise ValueError(f"{where}: no sensor has values; leave the file out, or download it again")
    labels = label_spans(time_s, _codes(values[:, 0]), layout.activities, where)
    return MatrixRows(tuple(devices), labels, tuple(notes))


def _samples(time_s: np.ndarray, values: np.ndarray) -> Iterator[Samples]:
    for start in range(0, len(time_s), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        yield Samples(time_s[part], values[part])


def _codes(column: np.ndarray) -> np.ndarray:
    """The codes as integers, so that messages show them as the file does; others as they are."""
    whole = bool((column == np.rint(column)).all())
    return column.astype(np.int64) if whole else column
