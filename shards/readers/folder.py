"""Your own recordings: a ``recording.yaml`` describes the files next to it.

Sensors come from CSV, Parquet or npy files, the video from any file that FFmpeg reads, narrations
from CSV, SRT, VTT or JSON, labels from CSV or Parquet. ``docs/folder.md`` says what to write.
"""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from primus_scale.signal.units import UNIT_FACTORS
from primus_scale.storage.names import nearest
from shards.files.narrations import read_narrations
from shards.files.source import Source
from shards.files.video import Video
from shards.readers.base import Reader
from shards.readers.folder_labels import read_labels
from shards.readers.folder_listing import (
    DESCRIPTION,
    WINDOWS,
    label_of,
    list_recordings,
    placement_of,
)
from shards.readers.recording_yaml import (
    NarrationsFile,
    RecordingFile,
    VideoFile,
    WindowsFile,
    load_yaml,
)
from shards.readers.sensor_files import open_sensor
from shards.readers.table_yaml import FARTHEST_S, SensorFile
from shards.readers.timed_rows import (
    ClockOrigin,
    FirstTime,
    common_origin,
    prefix_errors,
    read_first_time,
)
from shards.recording import (
    Device,
    LabelSpan,
    Narration,
    Recording,
    RecordingRef,
    WindowSchema,
)


class FolderReader(Reader):
    """One recording for each ``recording.yaml``, or for each folder or file that it describes.

    follow_links: follow links out of the source as well; otherwise these are skipped and listed.
    """

    name: ClassVar[str] = "folder"
    unread_reason: ClassVar[str] = f"which no {DESCRIPTION} names"

    def __init__(self, source: Source, follow_links: bool = False) -> None:
        super().__init__(Source(source.url, inside=not follow_links))
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
        listing = list_recordings(self.source)
        self.left_out = listing.left_out
        return listing.refs

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; the first rows of its tables are read here, to check them early."""
        if "error" in ref.details:
            raise ValueError(ref.details["error"])
        folder = _Folder(self.source, ref.files[0], ref.details["folder"], ref.details["recording"])
        described = load_yaml(RecordingFile, self.source, folder.description)
        if described.by_file:
            described = described.of(posixpath.basename(folder.recording))
        person = described.person or ref.details["person"]
        session = described.session or ref.details.get("session")
        with ExitStack() as stack:
            devices, origin, notes = self._devices(folder, described, ref, stack)
            narrations, left_out = _narrations(folder, described.narrations)
            yield Recording(
                dataset=described.dataset,
                name=ref.name,
                person=f"{described.dataset}-{person}",
                devices=devices,
                session=f"{person}-{session}" if session else "",
                frames=_video(folder, described.video),
                narrations=narrations,
                labels=_labels(folder, described, ref.details.get("label"), origin),
                clock_zero=origin.date(),
                sync=_sync(described, origin),
                notes=(*notes, *left_out),
            )

    def _devices(
        self, folder: _Folder, described: RecordingFile, ref: RecordingRef, stack: ExitStack
    ) -> tuple[tuple[Device, ...], ClockOrigin, list[str]]:
        """The devices, whose files are open as long as ``stack``; their clock; and notes."""
        schema = self.schema()
        units = dict(zip(schema.channels, schema.units, strict=True))
        paths, starts, notes = {}, {}, []
        for field, sensor in described.sensors().items():
            where = f"{folder.where}: {field}"
            notes += _check_channels(sensor, units, where)
            paths[field] = folder.find(f"{field}.file", sensor.file)
            starts[field] = read_first_time(self.source, paths[field], sensor, where)
        origin = folder.origin(described, starts)
        devices = []
        for d, device in enumerate(described.devices):
            worn = placement_of(device, folder.inner, ref.details.get("placement"), folder.where)
            sensors = []
            for s, sensor in enumerate(device.sensors):
                field = f"devices.{d}.sensors.{s}"
                where, clock = f"{folder.where}: {field}", (starts[field], origin)
                sensors.append(open_sensor(self.source, paths[field], sensor, where, clock, stack))
            devices.append(Device(device.name, worn, tuple(sensors), device.rate_hz))
        return tuple(devices), origin, notes


@dataclass(frozen=True)
class _Folder:
    """The folder of a recording's files, and the description that names them.

    recording: its path: that of the folder, or what the paths of its files begin with.
    """

    source: Source
    description: str
    path: str
    recording: str

    @property
    def where(self) -> str:
        return self.source.locate(self.description)

    @property
    def inner(self) -> str:
        """The recording's path below the description."""
        return posixpath.relpath(self.recording or ".", posixpath.dirname(self.description) or ".")

    def find(self, field: str, file: str) -> str:
        """Path of a file below the source; FileNotFoundError naming the nearest one that exists."""
        path = posixpath.join(self.path, file)
        if not self.source.exists(path):
            folder = posixpath.dirname(path)
            paths = self.source.find(posixpath.join(glob.escape(folder), "*"))
            names = [posixpath.basename(other) for other in paths]
            raise FileNotFoundError(
                f"{self.where}: {field}: no {self.source.locate(path)}"
                f"{nearest(posixpath.basename(path), names)}; correct the name, or add the file"
            )
        return path

    def origin(self, described: RecordingFile, starts: Mapping[str, FirstTime]) -> ClockOrigin:
        """The time of the files' clock at which the recording's clock begins."""
        sensors = described.sensors()
        with prefix_errors(self.where):
            return common_origin([(sensors[field].file, start) for field, start in starts.items()])


def _check_channels(sensor: SensorFile, units: Mapping[str, str], where: str) -> list[str]:
    """A note on channels that windows do not have; ValueError where a unit does not fit windows."""
    kept, _ = UNIT_FACTORS[sensor.unit.unit]
    for channel in sensor.columns:
        if units.get(channel, kept) != kept:
            raise ValueError(
                f"{where}.unit: {sensor.unit.unit} becomes {kept}, but {channel} of the windows is "
                f"in {units[channel]}; correct the unit or the channel's name"
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
    folder: _Folder, file: NarrationsFile | None
) -> tuple[tuple[Narration, ...], tuple[str, ...]]:
    """The narrations on the recording's clock, and notes."""
    if file is None:
        return (), ()
    path = folder.find("narrations.file", file.file)
    with prefix_errors(f"{folder.where}: narrations"):
        narrations, notes = read_narrations(folder.source, path)
    shift = file.offset_s
    return tuple(Narration(s + shift, e + shift, text) for s, e, text in narrations), notes


def _labels(
    folder: _Folder, described: RecordingFile, name_label: str | None, origin: ClockOrigin
) -> tuple[LabelSpan, ...]:
    """The label spans on the recording's clock, by time. name_label: from the recording's name."""
    if (label := label_of(described, folder.inner, name_label, folder.where)) is not None:
        return (LabelSpan(-FARTHEST_S, FARTHEST_S, label),)
    if (file := described.labels) is None:
        return ()
    path = folder.find("labels.file", file.file)
    return read_labels(folder.source, path, file, f"{folder.where}: labels", origin)


def _sync(described: RecordingFile, origin: ClockOrigin) -> str:
    """How the description puts sensors, video, narrations and labels on one clock."""
    parts = [sensor.clock() for sensor in described.sensors().values()]
    if origin.clock is not None:
        parts.append(f"0 s is {origin.text()}, the first row ({origin.clock.value})")
    if described.video:
        parts.append(f"video from {described.video.start_s:g} s")
    for what in ("narrations", "labels"):
        if (file := getattr(described, what)) and file.offset_s:
            parts.append(f"{what} shifted by {file.offset_s:+g} s")
    return f"as {DESCRIPTION} states: {'; '.join(dict.fromkeys(parts))}"


READER = FolderReader
