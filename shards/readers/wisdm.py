"""WISDM 2019: phone in the pocket and watch on the dominant wrist, 51 people, 18 activities, 20 Hz.

Source: Weiss, Yoneda and Hayajneh, IEEE Access 2019; UCI repository, "WISDM Smartphone and
Smartwatch Activity and Biometrics Dataset", with its description and ``activity_key.txt``.
``raw/{phone,watch}/{accel,gyro}/data_<person>_{accel,gyro}_{phone,watch}.txt`` has rows

    person,activity,time,x,y,z;

with the time in ns on the device's own clock, which both its sensors share, x, y, z in m/s2 and
rad/s, and the activity as a letter. Phone and watch have different clocks, so they are
different recordings; labels are those of the accelerometer's rows.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np

from shards import placements
from shards.files.source import Source
from shards.files.tables import read_table
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, label_spans
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

RATE_HZ = 20.0
ACTIVITIES = {
    "A": "walking",
    "B": "jogging",
    "C": "climbing stairs",  # up and down
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "brushing teeth",
    "H": "eating soup",
    "I": "eating chips",
    "J": "eating pasta",
    "K": "drinking from a cup",
    "L": "eating a sandwich",
    "M": "kicking a ball",
    "O": "playing catch with a tennis ball",
    "P": "dribbling a basketball",
    "Q": "writing",
    "R": "clapping",
    "S": "folding laundry",  # "folding clothes" in the key
}
PLACEMENTS = {"phone": placements.POCKET, "watch": placements.WRIST}
_FILE = re.compile(r"(?:.*/)?data_(\d+)_(accel|gyro)_(phone|watch)\.txt")
_SENSORS = {"accel": (ACCELEROMETER, "m/s2"), "gyro": (GYROSCOPE, "rad/s")}
_COLUMNS = ("person", "activity", "time", "x", "y", "z")


class WisdmReader(Reader):
    """One recording for each person and device, named ``1600-phone``."""

    name: ClassVar[str] = "wisdm"
    other_files: ClassVar[tuple[str, ...]] = ("activity_key.txt", "arff_files/*")

    def recordings(self) -> list[RecordingRef]:
        """The text files by person and device; opens none."""
        files: dict[tuple[int, str], dict[str, str]] = defaultdict(dict)
        for path in self.source.find("**/data_*_*_*.txt"):
            if match := _FILE.fullmatch(path):
                sensors = files[int(match[1]), match[3]]
                if match[2] in sensors:
                    raise ValueError(
                        f"{self.source.locate(sensors[match[2]])} and {self.source.locate(path)} "
                        "have one name; point --src at one copy of the data set"
                    )
                sensors[match[2]] = path
        refs = [
            RecordingRef(
                f"{person}-{device}",
                tuple(sensors[kind] for kind in sorted(sensors)),
                {"person": person, "device": device, "sensors": sensors},
            )
            for (person, device), sensors in files.items()
        ]
        return checked_listing(
            self.source, refs, "raw/phone/accel/data_<person>_accel_phone.txt (nor of the watch)"
        )

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; ValueError where it has no accelerometer file, whose rows are labelled."""
        device, files = ref.details["device"], ref.details["sensors"]
        if "accel" not in files:
            raise ValueError(
                f"{self.source.locate(files['gyro'])} has no data_{ref.details['person']}_accel_"
                f"{device}.txt next to it, which holds the labels; download it again"
            )
        rows = _RowSource(self.source.url)
        sensors = tuple(
            Sensor(channels, unit, partial(_samples, rows, files[kind]))
            for kind, (channels, unit) in _SENSORS.items()
            if kind in files
        )
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=f"{self.name}-{ref.details['person']}",
            devices=(Device(device, PLACEMENTS[device], sensors, RATE_HZ),),
            labels=_labels(rows, files["accel"]),
            sync=f"the {device}'s own clock (ns), which both its sensors share",
            notes=() if "gyro" in files else ("no gyroscope file",),
        )


def _rows(source: Source, path: str) -> Iterator[dict[str, np.ndarray]]:
    """Rows of a file in chunks: numbers as float64, the activity as text."""
    numbers = ("time", "x", "y", "z")
    return read_table(source, path, columns=numbers, text_columns=("activity",), header=_COLUMNS)


def _samples(source: Source, path: str) -> Iterator[Samples]:
    for rows in _rows(source, path):
        values = np.stack([rows[axis] for axis in "xyz"], axis=1)
        yield Samples(rows["time"] / 1e9, values)


def _labels(source: Source, path: str) -> tuple[LabelSpan, ...]:
    chunks = [(rows["time"] / 1e9, rows["activity"].astype(str)) for rows in _rows(source, path)]
    times, codes = zip(*chunks, strict=True)
    return label_spans(
        np.concatenate(times), np.concatenate(codes), ACTIVITIES, source.locate(path)
    )


class _RowSource(Source):
    """The files without the semicolons that end their rows."""

    def open(self, path: str) -> BinaryIO:
        """A stream over the file, its semicolons blanked."""
        return cast(BinaryIO, io.BufferedReader(_WithoutSemicolons(super().open(path))))


class _WithoutSemicolons(io.RawIOBase):
    """A stream with spaces for semicolons: numbers may be followed by space, lines stay lines."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the stream."""
        data = self._stream.read(len(buffer)).replace(b";", b" ")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream beneath as well."""
        super().close()
        self._stream.close()


READER = WisdmReader
