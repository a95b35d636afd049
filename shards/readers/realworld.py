"""RealWorld HAR: phones and a watch at seven placements, 15 people, 8 activities, 50 Hz.

Source: Sztyler and Stuckenschmidt, PerCom 2016; University of Mannheim, "RealWorld (HAR)" data set.
``proband<person>/data/{acc,gyr}_<activity>_csv.zip`` holds a file a placement,
``acc_<activity>_<placement>.csv`` and ``Gyroscope_<activity>_<placement>.csv``, with columns id,
attr_time (Unix, ms), attr_x, attr_y, attr_z in m/s2 and rad/s. An activity that was recorded in
several parts has files numbered ``_2_``, or one zip for each part within the zip. The numbers of
the two sensors do not always agree. So here all parts are one recording, whose samples are matched
by their times.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np

from primus_scale.storage.foreign import reason
from primus_scale.storage.names import check_name
from shards import placements
from shards.files.source import Source
from shards.files.tables import read_table
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, label_spans
from shards.readers.unread import describe_unread
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

RATE_HZ = 50.0
ACTIVITIES = {
    "climbingdown": "walking downstairs",
    "climbingup": "walking upstairs",
    "jumping": "jumping",
    "lying": "lying",
    "running": "running",
    "sitting": "sitting",
    "standing": "standing",
    "walking": "walking",
}
PLACEMENTS = {
    "chest": placements.CHEST,
    "forearm": placements.FOREARM,
    "head": placements.HEAD,
    "shin": placements.SHIN,
    "thigh": placements.THIGH,
    "upperarm": placements.UPPER_ARM,
    "waist": placements.WAIST,
}
_ZIP = re.compile(r"(?:.*/)?proband(\d+)/data/(?:acc|gyr)_([a-z]+)(?:_\d+)?_csv\.zip")
_CSV = re.compile(r"(acc|gyr|gyroscope)_([a-z]+)(?:_\d+)?_([a-z]+)\.csv")
_MOST_ZIPS = 3  # within each other; the data set has two
_SENSORS = {"acc": (ACCELEROMETER, "m/s2"), "gyr": (GYROSCOPE, "rad/s")}
_COLUMNS = ("attr_time", "attr_x", "attr_y", "attr_z")


class RealWorldReader(Reader):
    """One recording for each person and activity, with a device for each placement."""

    name: ClassVar[str] = "realworld"
    # Other sensors, the same data in other formats, and pictures of the people.
    other_files: ClassVar[tuple[str, ...]] = (
        *(f"data/{sensor}_*_csv.zip" for sensor in ("gps", "lig", "mag", "mic")),
        *("data/???_*_sqlite.zip", "image*/*", "video*/*"),
    )

    def recordings(self) -> list[RecordingRef]:
        """The zips of accelerometer and gyroscope, by person and activity; opens none."""
        files: dict[tuple[int, str], list[str]] = defaultdict(list)
        for path in self.source.find("**/*_csv.zip"):
            if match := _ZIP.fullmatch(path):
                files[int(match[1]), match[2]].append(path)
        refs = [
            RecordingRef(
                f"proband{person:02d}-{activity}",
                tuple(paths),
                {"person": person, "activity": activity},
            )
            for (person, activity), paths in files.items()
        ]
        return checked_listing(self.source, refs, "proband<person>/data/acc_<activity>_csv.zip")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; its files are read from their zips, in pieces, without extracting them."""
        activity = ref.details["activity"]
        if activity not in ACTIVITIES:
            raise ValueError(
                f"{self.source.locate(ref.files[0])}: unknown activity {activity}; known are "
                f"{', '.join(ACTIVITIES)}. Correct the file's name"
            )
        zips = ZipSource(self.source.url)
        members = [member for file in ref.files for member in zips.members(file)]
        placements, notes = _placements(zips, ref, members)
        used = {path for files in placements.values() for paths in files.values() for path in paths}
        devices = tuple(
            Device(key, PLACEMENTS[key], _sensors(zips, placements[key]), RATE_HZ)
            for key in sorted(placements)
        )
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=f"{self.name}-{ref.details['person']}",
            devices=devices,
            session=f"proband{ref.details['person']:02d}",  # the devices were worn throughout
            labels=_labels(zips, placements, ACTIVITIES[activity]),
            sync="each phone's own Unix clock (attr_time), taken to agree between placements",
            notes=tuple(notes),
            unread=tuple(describe_unread(members, used, (), self.unread_reason)),
        )


class ZipSource(Source):
    """A source whose paths may lead into zips, and into zips within zips: ``a.zip/b.zip/file.csv``.

    Nothing is extracted: a member is a stream that is decompressed while it is read.
    """

    def members(self, path: str) -> list[str]:
        """Paths of all files in the zip at ``path``, and in the zips within it.

        ValueError naming a zip that is truncated, or is not a zip.
        """
        if len(_zips(path)) > _MOST_ZIPS:
            raise ValueError(f"{self.locate(path)}: more than {_MOST_ZIPS} zips within each other")
        with (
            _unzipping(self.locate(path)),
            self.open(path) as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            names = [name for name in archive.namelist() if not name.endswith("/")]
        found: list[str] = []
        for name in sorted(names):
            inner = f"{path}/{check_name(name, self.locate(path))}"
            found += self.members(inner) if name.endswith(".zip") else [inner]
        return found

    def open(self, path: str) -> BinaryIO:
        """A stream of the file at ``path``; closing it also closes the zips around it."""
        *zips, last = _zips(path)
        if not zips:
            return super().open(path)
        with ExitStack() as stack:
            stream: Any = stack.enter_context(super().open(zips[0]))
            for name in [*zips[1:], last]:
                archive = stack.enter_context(zipfile.ZipFile(stream))
                stream = stack.enter_context(archive.open(name))
            return cast(BinaryIO, _Member(stream, stack.pop_all()))


class _Member(io.BufferedReader):
    """A member of a zip, which also closes the zips around it."""

    def __init__(self, stream: Any, opened: ExitStack) -> None:
        super().__init__(stream)
        self._opened = opened

    def close(self) -> None:
        """Close the member, then the zips around it."""
        super().close()
        self._opened.close()


def _placements(
    zips: ZipSource, ref: RecordingRef, members: Iterable[str]
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Files by placement and sensor ("acc", "gyr"), and notes on what is missing."""
    placements: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in members:
        match = _CSV.fullmatch(path.rpartition("/")[2].lower())
        if match and match[3] in PLACEMENTS and match[2] == ref.details["activity"]:
            placements[match[3]][match[1][:3]].append(path)
    if not any("acc" in sensors for sensors in placements.values()):
        raise ValueError(
            f"{zips.locate(ref.files[0])}: no file acc_{ref.details['activity']}_<placement>.csv "
            "in it; download it again"
        )
    notes = [
        f"no {'accelerometer' if kind == 'acc' else 'gyroscope'} file at {PLACEMENTS[key]}"
        for key in sorted(placements)
        for kind in _SENSORS
        if kind not in placements[key]
    ]
    return placements, notes


def _sensors(zips: ZipSource, files: dict[str, list[str]]) -> tuple[Sensor, ...]:
    return tuple(
        Sensor(channels, unit, partial(_samples, zips, files[kind]))
        for kind, (channels, unit) in _SENSORS.items()
        if kind in files
    )


def _samples(zips: ZipSource, paths: list[str]) -> Iterator[Samples]:
    """Rows of all parts, one file after the other; ValueError naming a damaged one."""
    for path in paths:
        with _unzipping(zips.locate(path)):
            for rows in read_table(zips, path, columns=_COLUMNS):
                values = np.stack([rows[name] for name in _COLUMNS[1:]], axis=1)
                yield Samples(rows["attr_time"] / 1000.0, values)


def _labels(
    zips: ZipSource, placements: dict[str, dict[str, list[str]]], label: str
) -> tuple[LabelSpan, ...]:
    """A span of ``label`` for each time in which some accelerometer has samples."""
    paths = [path for sensors in placements.values() for path in sensors.get("acc", ())]
    time_s = np.concatenate([np.empty(0), *(chunk.time_s for chunk in _samples(zips, paths))])
    return label_spans(time_s, np.zeros(len(time_s), dtype=np.int64), {0: label}, paths[0])


def _zips(path: str) -> list[str]:
    """The zips around a member, each within the one before, and the member."""
    return re.split(r"(?<=\.zip)/", path)


@contextmanager
def _unzipping(where: str) -> Iterator[None]:
    """Turn errors of a damaged, encrypted or forged zip into a ValueError that names it."""
    try:
        yield
    except OSError:
        raise  # of the storage
    except Exception as error:
        if isinstance(error, ValueError) and where in str(error):
            raise
        raise ValueError(
            f"{where} is not a complete zip ({type(error).__name__}: {reason(error)}); download it "
            "again"
        ) from error


READER = RealWorldReader
