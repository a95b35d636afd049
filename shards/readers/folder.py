"""Your own recordings: every ``recording.yaml`` describes files that lie beside it.

Sensors come from CSV, Parquet or npy files, the video from any file that FFmpeg reads, narrations
from CSV, SRT, VTT or JSON, labels from CSV or Parquet. ``docs/folder.md`` says what to write.
"""

from __future__ import annotations

import glob
import itertools
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from shards.files.narrations import read_narrations
from shards.files.source import Source
from shards.files.tables import read_table
from shards.files.video import Video
from shards.nearest import nearest
from shards.readers.base import Reader
from shards.readers.recording_yaml import (
    PERSON,
    RecordingFile,
    SensorFile,
    TimedFile,
    VideoFile,
    WindowsFile,
    load_yaml,
)
from shards.readers.sensor_files import open_sensor, told
from shards.recording import (
    Device,
    LabelSpan,
    Narration,
    Recording,
    RecordingRef,
    WindowSchema,
)
from shards.signal.condition import UNIT_FACTORS

DESCRIPTION = "recording.yaml"
WINDOWS = "windows.yaml"


class FolderReader(Reader):
    """One recording for each ``recording.yaml``, or for each folder that one describes."""

    name: ClassVar[str] = "folder"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if source.locate(DESCRIPTION) == source.url:
            raise ValueError(f"{source.url} is a file; point --src at the folder that holds it")

    def schema(self) -> WindowSchema:
        """The six IMU channels, or what ``windows.yaml`` at the top of the source says."""
        if not self.source.exists(WINDOWS):
            return WindowSchema()
        windows = load_yaml(WindowsFile, self.source, WINDOWS)
        channels, units = tuple(windows.channels), tuple(windows.channels.values())
        return WindowSchema(channels, units, windows.rate_hz, windows.window_s)

    def recordings(self) -> list[RecordingRef]:
        """Those described; one whose description is wrong is listed too, and fails when opened."""
        described = self.source.find(f"**/{DESCRIPTION}")
        if not described:
            raise FileNotFoundError(
                f"no {DESCRIPTION} below {self.source.url}; write one beside your files, as "
                "docs/folder.md shows"
            )
        refs = sorted(
            (ref for path in described for ref in self._refs(path)), key=lambda ref: ref.name
        )
        for one, other in itertools.pairwise(refs):
            if one.name == other.name:
                raise ValueError(
                    f"{self.source.locate(one.files[0])} and {self.source.locate(other.files[0])} "
                    f"both describe a recording called {one.name}; give one another name"
                )
        return refs

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; the first rows of its tables are read already here, to be checked."""
        folder = _Folder(self.source, ref.files[0], ref.details["folder"])
        described = load_yaml(RecordingFile, self.source, folder.description)
        with ExitStack() as stack:
            devices, notes = self._devices(folder, described, stack)
            narrations, left_out = _narrations(folder, described.narrations)
            yield Recording(
                dataset=described.dataset,
                name=ref.name,
                person=f"{described.dataset}-{described.person or ref.details['person']}",
                devices=devices,
                frames=_video(folder, described.video),
                narrations=narrations,
                labels=_labels(folder, described.labels),
                sync=_sync(described),
                notes=(*notes, *left_out),
            )

    def _devices(
        self, folder: _Folder, described: RecordingFile, stack: ExitStack
    ) -> tuple[tuple[Device, ...], list[str]]:
        """The devices, their files found and open as long as ``stack``; and notes."""
        schema = self.schema()
        units = dict(zip(schema.channels, schema.units, strict=True))
        devices, notes = [], []
        for d, device in enumerate(described.devices):
            sensors = []
            for s, sensor in enumerate(device.sensors):
                field = f"devices.{d}.sensors.{s}"
                where = f"{folder.where}: {field}"
                notes += _check_channels(sensor, units, where)
                path = folder.find(f"{field}.file", sensor.file)
                sensors.append(open_sensor(self.source, path, sensor, where, stack))
            devices.append(Device(device.name, device.placement, tuple(sensors), device.rate_hz))
        return tuple(devices), notes

    def _refs(self, path: str) -> list[RecordingRef]:
        """The recordings that the file at ``path`` describes."""
        top = posixpath.dirname(path)
        try:
            described = load_yaml(RecordingFile, self.source, path)
        except ValueError:  # told when it is opened, so that others are read all the same
            return [RecordingRef(self._name(top), (path,), {"folder": top})]
        if described.recordings is None:
            return [self._ref(described, path, top, name=described.name)]
        files = set(described.files().values())
        pattern = posixpath.join(glob.escape(top), described.recordings.replace(PERSON, "*"))
        found = {
            hit.removesuffix(f"/{file}")
            for file in files
            for hit in self.source.find(f"{pattern}/{glob.escape(file)}")
        }
        if not found:
            raise FileNotFoundError(
                f"{self.source.locate(path)}: recordings: no folder {pattern} holds "
                f"{' or '.join(sorted(files))}; correct the pattern, or the names of the files"
            )
        people = _people(posixpath.join(top, described.recordings))
        return [
            self._ref(described, path, folder, person=match["person"] if match.groups() else None)
            for folder in sorted(found)
            if (match := people.fullmatch(folder))
        ]

    def _ref(
        self,
        described: RecordingFile,
        path: str,
        folder: str,
        *,
        name: str | None = None,
        person: str | None = None,
    ) -> RecordingRef:
        files = (posixpath.join(folder, file) for file in described.files().values())
        details = {"folder": folder, "person": person}
        return RecordingRef(name or self._name(folder), (path, *dict.fromkeys(files)), details)

    def _name(self, folder: str) -> str:
        """Of a recording that has none of its own: its folders below the source."""
        return folder.replace("/", "-") or self.source.url.rpartition("/")[2] or self.name


def _people(pattern: str) -> re.Pattern[str]:
    """Matches a folder by a pattern of RecordingFile, and the person where it holds one."""
    return re.compile(
        re.escape(pattern)
        .replace(re.escape("*"), "[^/]*")
        .replace(re.escape(PERSON), "(?P<person>[^/]+)")
    )


@dataclass(frozen=True)
class _Folder:
    """A recording's folder, and the file that describes it, in messages."""

    source: Source
    description: str
    path: str

    @property
    def where(self) -> str:
        return self.source.locate(self.description)

    def find(self, field: str, file: str) -> str:
        """Path of a file below the source; FileNotFoundError naming what is there instead."""
        path = posixpath.join(self.path, file)
        if not self.source.exists(path):
            folder = posixpath.dirname(path)
            beside = self.source.find(posixpath.join(glob.escape(folder), "*"))
            there = [posixpath.basename(other) for other in beside]
            raise FileNotFoundError(
                f"{self.where}: {field}: no {self.source.locate(path)}"
                f"{nearest(posixpath.basename(path), there)}; correct the name, or add the file"
            )
        return path


def _check_channels(sensor: SensorFile, units: Mapping[str, str], where: str) -> list[str]:
    """A note on channels that the windows lack; ValueError for a unit that cannot be theirs."""
    kept, _ = UNIT_FACTORS[sensor.unit]
    for channel in sensor.columns:
        if units.get(channel, kept) != kept:
            raise ValueError(
                f"{where}.unit: {sensor.unit} becomes {kept}, but {channel} of the windows is in "
                f"{units[channel]}; correct the unit or the channel's name"
            )
    others = [channel for channel in sensor.columns if channel not in units]
    if not others:
        return []
    return [f"{', '.join(others)} of {sensor.file}: not among the windows' channels, left out"]


def _video(folder: _Folder, video: VideoFile | None) -> Video | None:
    if video is None:
        return None
    path = folder.find("video.file", video.file)
    return Video(
        partial(folder.source.open, path),
        folder.source.locate(path),
        start_s=video.start_s,
        quarter_turns=video.quarter_turns,
    )


def _narrations(
    folder: _Folder, file: TimedFile | None
) -> tuple[tuple[Narration, ...], tuple[str, ...]]:
    """The narrations on the recording's clock, and notes."""
    if file is None:
        return (), ()
    path = folder.find("narrations.file", file.file)
    with told(f"{folder.where}: narrations"):
        narrations, notes = read_narrations(folder.source, path)
    shift = file.offset_s
    return tuple(Narration(s + shift, e + shift, text) for s, e, text in narrations), notes


def _labels(folder: _Folder, file: TimedFile | None) -> tuple[LabelSpan, ...]:
    """The label spans on the recording's clock, by time; ValueError for two at one time."""
    if file is None:
        return ()
    path = folder.find("labels.file", file.file)
    where = folder.source.locate(path)
    spans: list[tuple[LabelSpan, int]] = []
    with told(f"{folder.where}: labels"):
        times, text = ("start_s", "end_s"), ("label",)
        for piece in read_table(folder.source, path, columns=times, text_columns=text):
            for cells in zip(*(piece[name].tolist() for name in (*times, *text)), strict=True):
                span, row = LabelSpan(*cells), len(spans) + 1
                if not span.label.strip() or not -math.inf < span.start_s < span.end_s < math.inf:
                    raise ValueError(
                        f"{where}: row {row} below the header: {span.label!r} from "
                        f"{span.start_s:g} s to {span.end_s:g} s is no stretch of an activity; "
                        "correct it, or leave the row out"
                    )
                spans.append((span, row))
        spans.sort()
        for (one, first), (other, second) in itertools.pairwise(spans):
            if other.start_s < one.end_s:
                raise ValueError(
                    f"{where}: rows {first} and {second} below the header overlap; let "
                    f"{one.label!r} end before {other.label!r} starts"
                )
    shift = file.offset_s
    return tuple(LabelSpan(s + shift, e + shift, label.strip()) for (s, e, label), _ in spans)


def _sync(described: RecordingFile) -> str:
    """How the description puts all on one clock."""
    sensors = [sensor for device in described.devices for sensor in device.sensors]
    parts = [sensor.clock() for sensor in sensors]
    if described.video:
        parts.append(f"video from {described.video.start_s:g} s")
    for what in ("narrations", "labels"):
        if (file := getattr(described, what)) and file.offset_s:
            parts.append(f"{what} shifted by {file.offset_s:+g} s")
    return f"as {DESCRIPTION} states: {'; '.join(dict.fromkeys(parts))}"


READER = FolderReader
