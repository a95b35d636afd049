"""NinaPro: surface EMG of the forearm during hand movements, databases 2 and 5.

Source: https://ninapro.hevs.ch, Atzori et al. 2014 (DB2: 40 people, 12 Delsys Trigno electrodes,
2 kHz, volts) and Pizzolato et al. 2017 (DB5: 10 people, two Thalmic Myo armbands with 16 electrodes
in all, 200 Hz, signed 8-bit counts). A file ``S<person>_E<exercise>_A1.mat`` is a recording. These
of its variables are used:

    emg (n, channels)     restimulus (n, 1): movement, relabelled to fit the muscle; 0 is rest
    subject: the person's number, as in the file's name

The name of a movement has its exercise ("exercise 2 movement 05"), because DB5 numbers movements
from 1 in each exercise. The pause after every movement is rest. It gets no label: it is the null
class.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.io

from shards import placements
from shards.files.source import Source
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, label_spans, regular_samples
from shards.recording import Device, Recording, RecordingRef, Sensor, WindowSchema


class _Database(NamedTuple):
    """channels, unit and rate as documented. limit: full scale in ``unit``, None if unknown."""

    channels: int
    unit: str
    rate_hz: float
    limit: float | None


_DATABASES = {
    "db2": _Database(12, "V", 2000.0, None),
    "db5": _Database(16, "1", 200.0, 127.0),
}
_VARIABLES = ("emg", "restimulus", "subject")
_FILE = re.compile(r"(?:.*/)?(S(\d+)_E(\d+)_A\d+)\.mat")


class NinaproReader(Reader):
    """One recording a file; the device is the set of electrodes on the forearm.

    database: "db2" or "db5". It determines channels, unit and rate, which the files do not state.
    """

    name: ClassVar[str] = "ninapro"

    def __init__(self, source: Source, database: str = "db5") -> None:
        super().__init__(source)
        if database not in _DATABASES:
            raise ValueError(
                f"option database={database}: known NinaPro databases are {', '.join(_DATABASES)}"
            )
        self.database = database

    def schema(self) -> WindowSchema:
        """All electrodes at their own rate, in windows of 1 s, within one movement of about 5 s."""
        channels, unit, rate_hz, _ = _DATABASES[self.database]
        names = tuple(f"emg_{number + 1}" for number in range(channels))
        return WindowSchema(names, (unit,) * channels, rate_hz, window_s=1.0)

    def recordings(self) -> list[RecordingRef]:
        """The ``S*_E*_A*.mat`` files in any folder, called ``db5-S1_E1_A1``."""
        matches = filter(None, map(_FILE.fullmatch, self.source.find("**/*.mat")))
        refs = [
            RecordingRef(
                f"{self.database}-{match[1]}",
                (match[0],),
                {"person": int(match[2]), "exercise": int(match[3])},
            )
            for match in matches
        ]
        return checked_listing(self.source, refs, "NinaPro file S<person>_E<exercise>_A1.mat")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; its variables ``emg`` and ``restimulus`` are held in memory meanwhile."""
        where = self.source.locate(ref.files[0])
        variables = self._load(ref.files[0])
        _check_person(variables, ref.details["person"], where)
        emg = self._emg(variables, where)
        movements = _column(variables, "restimulus", len(emg), where)
        schema, database = self.schema(), _DATABASES[self.database]
        exercise = ref.details["exercise"]
        labels = label_spans(
            np.arange(len(emg)) / database.rate_hz,
            movements,
            _movement_names(movements, exercise, where),
            where,
        )
        sensor = Sensor(
            schema.channels,
            database.unit,
            partial(regular_samples, emg, database.rate_hz),
            limit=database.limit,
        )
        yield Recording(
            dataset=f"{self.name}-{self.database}",
            name=ref.name,
            person=f"{self.name}-{self.database}-{ref.details['person']}",
            devices=(Device("forearm", placements.FOREARM, (sensor,), database.rate_hz),),
            session=f"S{ref.details['person']}",  # the electrodes stay on through all exercises
            labels=labels,
            sync="one file: EMG and movement labels share its rows",
            notes=(f"no times in the file: rows are {database.rate_hz:g} a second",),
        )

    def _load(self, path: str) -> dict[str, Any]:
        where = self.source.locate(path)
        with self.source.open(path) as stream:
            content = io.BytesIO(
                stream.read()
            )  # here, so an error of storage is not one of the file
        try:
            return dict(scipy.io.loadmat(content, variable_names=_VARIABLES))
        except NotImplementedError:
            raise ValueError(
                f"{where} is a MATLAB 7.3 file (HDF5); save it again with `save -v7`"
            ) from None
        except Exception as error:  # scipy raises errors of any kind for damaged bytes
            raise ValueError(
                f"{where} is not a complete MATLAB file ({type(error).__name__}: {error}); "
                "download it again"
            ) from error

    def _emg(self, variables: dict[str, Any], where: str) -> np.ndarray:
        emg = _variable(variables, "emg", where)
        expected = _DATABASES[self.database].channels
        if emg.ndim != 2 or emg.shape[1] != expected or not len(emg):
            fits = [
                name for name, other in _DATABASES.items() if emg.shape[1:] == (other.channels,)
            ]
            step = f"use --option database={fits[0]}" if fits and len(emg) else "check the file"
            raise ValueError(
                f"{where}: emg has shape {emg.shape}, but {self.database} has rows of {expected} "
                f"electrodes; {step}"
            )
        return emg


def _check_person(variables: dict[str, Any], person: int, where: str) -> None:
    """ValueError where the file states another person than its name does; it names both."""
    if "subject" in variables:
        inside = _variable(variables, "subject", where).ravel().tolist()
        if inside != [person]:
            raise ValueError(
                f"{where} is named as of person {person}, but its variable subject says "
                f"{', '.join(map(str, inside))}; give the file the name that it was published with"
            )


def _variable(variables: dict[str, Any], name: str, where: str) -> np.ndarray:
    if name not in variables:
        raise ValueError(
            f"{where} has no variable {name}; NinaPro files hold emg and restimulus. Download it "
            "again from ninapro.hevs.ch"
        )
    values = np.asarray(variables[name])
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{where}: {name} holds {values.dtype}, not numbers; download it again")
    return values


def _column(variables: dict[str, Any], name: str, rows: int, where: str) -> np.ndarray:
    """A variable with one whole number in each row, as int64."""
    values = _variable(variables, name, where)
    if values.size != rows:
        raise ValueError(
            f"{where}: {name} has {values.size} rows but emg {rows}; download the file again"
        )
    return values.reshape(rows).astype(np.int64)


def _movement_names(movements: np.ndarray, exercise: int, where: str) -> dict[int, str | None]:
    """Names of the movements that occur; 0 is rest. No database has 100 movements."""
    occurring = np.unique(movements).tolist()
    if not 0 <= occurring[0] <= occurring[-1] < 100:
        raise ValueError(
            f"{where}: restimulus runs from {occurring[0]} to {occurring[-1]}; movements are "
            "numbered from 1 (0 is rest). Download the file again"
        )
    names = {code: f"exercise {exercise} movement {code:02d}" for code in occurring}
    return {**names, 0: None}


READER = NinaproReader
