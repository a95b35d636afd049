"""Action cameras whose MP4 holds the IMU as well: GoPro, Sony, Insta360; one recording a file.

The telemetry of a GoPro is read by `shards.readers.gopro_track`. It has a time for each block of
samples, and is read block by block, also from remote files, so memory is bounded.

That of Sony and Insta360 is read by the ``telemetry-parser`` library. Source: its documentation:
accelerometer in m/s2, gyroscope in deg/s, axes turned so that those of one maker agree, times in ms
from the beginning of the video. A row has both sensors, or an empty cell for one. The library opens
local paths only, and returns the telemetry of a file as a whole. That takes about 1.3 kB a sample
while it is read, 0.9 GB for an hour at 200 Hz. Cameras split longer recordings into files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import telemetry_parser

from primus_scale.storage.foreign import reason
from shards import placements
from shards.files.capture_rate import capture_rate
from shards.files.narrations import read_narrations
from shards.files.source import Source
from shards.files.video import Video, check_real_time
from shards.readers.base import Reader
from shards.readers.gopro_pace import check_span
from shards.readers.gopro_track import Telemetry, read_track, read_video_length
from shards.readers.people import person_or_unknown
from shards.readers.rows import CHUNK_ROWS, checked_listing
from shards.recording import (
    ACCELEROMETER,
    GYROSCOPE,
    Device,
    Narration,
    Recording,
    RecordingRef,
    Samples,
    Sensor,
)

VIDEOS = (".mp4", ".360", ".insv")
NARRATIONS = (".csv", ".srt", ".vtt", ".json")
# A GoPro cuts a long video into chapters: GX010042.MP4, GX020042.MP4 (GOPR0042, GP010042 once).
_CHAPTER = re.compile(r"(?:G[A-Z]\d{2}|GOPR)(\d{4})", re.IGNORECASE)


class _SensorKind(NamedTuple):
    """A kind of sensor. gpmf_key: in a GoPro's track. key, unit: in the library's rows."""

    channels: tuple[str, ...]
    called: str
    gpmf_key: str
    key: str
    unit: str


_SENSOR_KINDS = (
    _SensorKind(ACCELEROMETER, "accelerometer", "ACCL", "accl", "m/s2"),
    _SensorKind(GYROSCOPE, "gyroscope", "GYRO", "gyro", "deg/s"),
)
_SYNC_BLOCKS = (
    "a clock for each sensor from counts of samples (their stamps, where there are) against the "
    "times of telemetry blocks, taken to be presentation times of the video"
)
_GOPRO_AXES = (
    "x up, y across the camera, z along its line of sight, which way not documented "
    "(order Z, X, Y of GoPro's document, after ORIN or MTRX)"
)
_SYNC_ROWS = "sample times of telemetry-parser taken to be presentation times of the video"


class _CameraData(NamedTuple):
    """What a file's telemetry holds; ``sensors`` by their kind."""

    name: str
    sensors: dict[_SensorKind, Sensor]
    rate_hz: float | None
    sync: str
    axes: str = ""
    notes: tuple[str, ...] = ()


class GoProReader(Reader):
    """One recording for each video file, named by its path below the source.

    placement: where the camera was worn. person: who wore it. Empty: the first folder below the
    source that holds the file; files outside all folders are of one unknown person, since a camera
    splits a recording into several files. A file of the same name that ends in .csv, .srt, .vtt or
    .json holds narrations, in the video's time. It is used if the source is a folder, not if the
    source is one video.
    """

    name: ClassVar[str] = "gopro"
    # Previews, photos, sound and files of the camera's own, as they are on memory cards.
    other_files: ClassVar[tuple[str, ...]] = (
        *("*.lrv", "*.lrf", "*.thm", "*.gpr", "*.dng", "*.jpg", "*.jpeg", "*.insp", "*.wav"),
        *("MISC/*", "leinfo.sav", "version.txt", "Get_started_with_GoPro*", "fileinfo_list.list"),
        *("C????M??.XML", "MEDIAPRO.XML", "CUEUP.XML", "STATUS.BIN", "SONYCARD.IND"),
    )

    def __init__(self, source: Source, placement: str = placements.HEAD, person: str = "") -> None:
        super().__init__(source)
        self._placement = placement
        self._person = person

    def recordings(self) -> list[RecordingRef]:
        """The video files; files without telemetry are reported when they are opened."""
        paths = self.source.find("**/*")
        by_stem: dict[str, list[str]] = {}
        for path in paths:
            stem, extension = posixpath.splitext(path)
            if extension.lower() in NARRATIONS:
                by_stem.setdefault(stem, []).append(path)
        refs = []
        for path in paths:
            stem, extension = posixpath.splitext(path)
            if extension.lower() in VIDEOS and not posixpath.basename(path).startswith("."):
                refs.append(RecordingRef(path, (path, *by_stem.get(stem, ()))))
        return checked_listing(self.source, refs, "video file (.mp4, .360, .insv)")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; its telemetry is read here, its pictures are decoded when they are needed.

        ValueError naming the file and the next step where it is no video, it has no IMU,
        or its telemetry is damaged.
        """
        path, *narration_paths = ref.files
        narrations, left_out = self._narrations(narration_paths)
        frames = Video(partial(self.source.open, path), self.source.locate(path))
        try:
            camera = self._camera(path)
        except ValueError:
            frames.times_s()  # raises a better error where the whole file is damaged
            raise
        sensors = tuple(camera.sensors.values())
        notes = [*camera.notes, *_missing(camera), *left_out]
        folder, beneath, _ = path.partition("/")
        person = self._person or (folder if beneath else None)
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=person_or_unknown(self.name, person, notes),
            devices=(Device(camera.name, self._placement, sensors, camera.rate_hz, camera.axes),),
            session=_session_of(path),
            frames=frames,
            narrations=narrations,
            sync=camera.sync,
            notes=tuple(notes),
        )

    def _camera(self, path: str) -> _CameraData:
        where = self.source.locate(path)
        telemetry = read_track(partial(self.source.open, path), where)
        if telemetry is not None:
            camera = _gopro(telemetry)
        else:
            with self.source.local(path) as local:
                camera = _other_maker(local, where)
        if not camera.sensors:
            raise ValueError(
                f"{where}: the telemetry of this {camera.name} holds no IMU samples; leave it out"
            )
        return camera

    def _narrations(self, paths: list[str]) -> tuple[tuple[Narration, ...], tuple[str, ...]]:
        if len(paths) > 1:
            both = " and ".join(map(self.source.locate, paths))
            raise ValueError(f"{both} are both named as narrations of one video; keep one")
        return read_narrations(self.source, paths[0]) if paths else ((), ())


def _session_of(path: str) -> str:
    """The video that a file is a chapter of, by its folder and number; else nothing."""
    folder, name = posixpath.split(path)
    match = _CHAPTER.fullmatch(posixpath.splitext(name)[0])
    return posixpath.join(folder, f"video {match[1]}") if match else ""


def _gopro(telemetry: Telemetry) -> _CameraData:
    # Some models' names begin with the maker's.
    model = telemetry.device.removeprefix("GoPro").strip()
    found = {kind: telemetry.sensors.get(kind.gpmf_key) for kind in _SENSOR_KINDS}
    present = {kind: sensor for kind, sensor in found.items() if sensor is not None}
    rates_hz = [sensor.rate_hz() for sensor in present.values()] or [0.0]
    return _CameraData(
        f"GoPro {model}".strip(),
        {
            kind: Sensor(kind.channels, one.unit, one.read, limit=one.limit)
            for kind, one in present.items()
        },
        # None where blocks do not show the rate, or sensors differ by more than 1 %.
        rates_hz[0] if 0 < max(rates_hz) < 1.01 * min(rates_hz) else None,
        _SYNC_BLOCKS,
        _GOPRO_AXES,
        telemetry.notes,
    )


def _other_maker(path: Path, where: str) -> _CameraData:
    """Telemetry read by the library; ValueError naming a file that it cannot read."""
    try:
        parser = telemetry_parser.Parser(str(path))
        names = [parser.camera, *(parser.model or "").removeprefix(parser.camera).split()]
        rows = parser.normalized_imu()
    except Exception as error:  # of the library's own classes, for what is wrong in the file
        raise ValueError(
            f"{where} has no telemetry that can be read ({reason(error)}); take the file as the "
            "camera wrote it: cutting or converting a video loses its telemetry"
        ) from None
    sensors, video = {}, read_video_length(path, where)
    with path.open("rb") as file:
        rate = capture_rate(file, {})
    if rate is not None and video.frames and video.duration_s:
        check_real_time(where, rate, video.frames / video.duration_s)
    for kind in _SENSOR_KINDS:
        kind_rows = [row for row in rows if row[kind.key] is not None]
        if kind_rows:
            time_s = np.array([row["timestamp_ms"] for row in kind_rows], np.float64) * 1e-3
            check_span(where, float(np.ptp(time_s)), video)
            values = np.array([row[kind.key] for row in kind_rows], np.float64)
            sensors[kind] = Sensor(
                kind.channels, kind.unit, partial(_chunks, Samples(time_s, values))
            )
    return _CameraData(" ".join(names), sensors, None, _SYNC_ROWS)


def _missing(camera: _CameraData) -> list[str]:
    """A note on each sensor that the telemetry lacks."""
    return [
        f"no {kind.called} in its telemetry" for kind in _SENSOR_KINDS if kind not in camera.sensors
    ]


def _chunks(samples: Samples) -> Iterator[Samples]:
    for start in range(0, len(samples.time_s), CHUNK_ROWS):
        stop = start + CHUNK_ROWS
        yield Samples(samples.time_s[start:stop], samples.values[start:stop])


READER = GoProReader
