"""Ego4D: head-worn cameras, video and narrations for all, IMU for some (GoPro), 931 people.

Source: Grauman et al., CVPR 2022; documentation at ego4d-data.org ("IMU", "Videos", "Annotation
Schemas", "Annotation Guidelines"). Point --src at what ``ego4d --datasets imu video_540ss
annotations`` downloads: ``ego4d.json``, ``imu/<uid>.csv``, ``video_540ss/<uid>.mp4`` or
``full_scale/<uid>.mp4``, ``annotations/narration.json``.

An IMU file has a row for each sample: component_idx (number of the file that the camera wrote; its
files were joined to one video), component_timestamp_ms, canonical_timestamp_ms (in the joined
video; it may be empty), gyro_x..z in rad/s, accl_x..z in m/s2. Some of these files have rows out of
order, impossible times, components without IMU, or no acceleration; none has a calibration.

Videos of one scenario are labelled with it, in small letters as all activities are.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from shards import placements
from shards.files.json_members import ByteRange, field_of, find_members, optional_field, read_member
from shards.files.narrations import clean_narrations
from shards.files.source import Source
from shards.files.tables import NULLS, read_table
from shards.files.video import Video
from shards.readers.base import Reader
from shards.readers.people import person_or_unknown
from shards.readers.rows import activity_name, checked_listing
from shards.recording import (
    ACCELEROMETER,
    GYROSCOPE,
    Device,
    LabelSpan,
    Narration,
    Recording,
    RecordingRef,
    Samples,
    Sensor,
)

_UID = re.compile(r"(?:.*/)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(csv|mp4)")
_CANONICAL, _COMPONENT = "canonical_timestamp_ms", "component_timestamp_ms"
_SENSORS = {
    "accelerometer": (ACCELEROMETER, "m/s2", ("accl_x", "accl_y", "accl_z")),
    "gyroscope": (GYROSCOPE, "rad/s", ("gyro_x", "gyro_y", "gyro_z")),
}
_NULLS = (*NULLS, "NULL")
_LAG = "video and IMU may be off by 0.5 to 1 s in some videos"


class Ego4dReader(Reader):
    """One recording for each video with IMU, named by its uid.

    passes: each video was narrated by two annotators; the passes to use ("1,2"). full_scale: decode
    ``full_scale/`` also where the smaller ``video_540ss/`` is there.
    """

    name: ClassVar[str] = "ego4d"
    other_files: ClassVar[tuple[str, ...]] = (
        *("ego4d.json", "manifest.csv", "*.ver", "narration.json", "all_narrations*.json"),
        *(f"annotations/{task}_*" for task in ("av", "fho", "moments", "nlq", "vq", "goalstep")),
        *("narration_noun_taxonomy.csv", "narration_verb_taxonomy.csv"),
        # Videos without IMU, cut or smaller ones, and features of videos.
        *("????????-????-????-????-????????????.mp4", "????????-????-????-????-????????????*.pt"),
        *("3d/*", "viz/*", "gaze/*", "slowfast*/*", "omnivore*/*", "*_models/*"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"text"})

    def __init__(self, source: Source, passes: str = "1,2", full_scale: bool = False) -> None:
        super().__init__(source)
        self._passes = sorted({number.strip() for number in passes.split(",")})
        if not set(self._passes) <= {"1", "2"}:
            raise ValueError(f"option passes={passes}: write 1, 2 or 1,2")
        self._full_scale = full_scale

    def recordings(self) -> list[RecordingRef]:
        """The videos that have an IMU file here, or a video that should have one; opens none.

        ego4d.json and narration.json are read once, in pieces.
        """
        imu = self._files("csv")
        videos = self._files("mp4")
        for uid, paths in imu.items():
            if len(paths) > 1:
                raise ValueError(f"video {uid} has two IMU files: {self._located(paths)}")
        metadata = _metadata(self.source, self._only_file("ego4d.json"), videos.keys() | imu.keys())
        wanted = {
            uid for uid in metadata.keys() | imu.keys() if uid in imu or metadata[uid]["has_imu"]
        }
        narrations = self._only_file("narration.json", needed=False)
        ranges = _narration_ranges(self.source, narrations, wanted) if narrations else {}
        refs = []
        for uid in wanted:
            details = {
                **metadata.get(uid, {"metadata": False}),
                "imu": imu[uid][0] if uid in imu else None,
                "video": self._video(videos.get(uid, ())),
                "narrations": narrations,
                "place": ranges.get(uid),
            }
            files = (details["imu"], details["video"], narrations if uid in ranges else None)
            refs.append(RecordingRef(uid, tuple(file for file in files if file), details))
        return checked_listing(self.source, refs, "imu/<video_uid>.csv")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording. Its IMU file is read once here, to find what each component has."""
        details = ref.details
        if "fault" in details:
            raise ValueError(details["fault"])
        notes = _notes(details)
        devices, sync = _devices(self.source, details, notes)
        frames = None
        if path := details["video"]:
            # Canonical videos are cut so that their first frame is at 0.
            frames = Video(partial(self.source.open, path), self.source.locate(path))
        else:
            notes.append("no video file")
        narrations = self._narrations(ref, notes)
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=person_or_unknown(self.name, details.get("person"), notes),
            devices=devices,
            frames=frames,
            narrations=narrations,
            labels=_labels(details, notes),
            sync=sync,
            notes=tuple(notes),
        )

    def _files(self, extension: str) -> dict[str, list[str]]:
        """Paths of the files named by a uid."""
        files = defaultdict(list)
        for path in self.source.find(f"**/*.{extension}"):
            if match := _UID.fullmatch(path):
                files[match[1]].append(path)
        return files

    def _only_file(self, name: str, *, needed: bool = True) -> str | None:
        """Path of the one file of this name."""
        found = self.source.find(f"**/{name}")
        if len(found) > 1:
            raise ValueError(
                f"{self._located(found)} are of two versions of Ego4D; point --src at the folder "
                "of one"
            )
        if needed and not found:
            raise FileNotFoundError(
                f"no {name} below {self.source.url}; point --src at the folder that the ego4d "
                "command downloads to, or download it with --metadata"
            )
        return found[0] if found else None

    def _located(self, paths: Sequence[str]) -> str:
        return " and ".join(self.source.locate(path) for path in paths)

    def _video(self, paths: Sequence[str]) -> str | None:
        """Of the files of one video, the one to decode."""
        folder = "full_scale" if self._full_scale else "video_540ss"
        ranked = sorted(paths, key=lambda path: (f"/{folder}/" not in f"/{path}", path))
        return ranked[0] if ranked else None

    def _narrations(self, ref: RecordingRef, notes: list[str]) -> tuple[Narration, ...]:
        """The narrations of all chosen passes, by time."""
        path, span = ref.details["narrations"], ref.details["place"]
        if span is None:
            notes.append("no narrations: not in narration.json" if path else "no narration.json")
            return ()
        where = f"{self.source.locate(path)}: a narration of {ref.name}"
        entry = read_member(self.source, path, ByteRange(*span))
        raw, untimed = [], 0
        for number in self._passes:
            of_pass = optional_field(entry, f"narration_pass_{number}", where, dict) or {}
            for narration in optional_field(of_pass, "narrations", where, list) or []:
                time_s = field_of(narration, "timestamp_sec", where)
                field_of(narration, "narration_text", where)  # required, but it may be null
                text = optional_field(narration, "narration_text", where, str) or ""
                if isinstance(time_s, int | float) and math.isfinite(time_s):
                    raw.append(Narration(float(time_s), float(time_s), text))
                else:
                    untimed += 1
        narrations, left_out = clean_narrations(sorted(raw))
        notes += left_out
        if untimed:
            notes.append(f"narrations left out: {untimed}, without a time")
        if not raw:
            notes.append(f"no narrations in pass {' or '.join(self._passes)}")
        return narrations


def _metadata(source: Source, path: str | None, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The needed fields of ego4d.json for the wanted videos."""
    assert path is not None
    found: dict[str, dict[str, Any]] = {}
    for member in find_members(source, path, inside="videos"):
        if len(member.keys) != 2:
            continue
        video = member.value()
        uid = field_of(video, "video_uid", f"{source.locate(path)}: video {member.keys[1]}", str)
        if uid in wanted:
            found[uid] = {"metadata": True, "has_imu": bool(video.get("has_imu"))}
            try:
                found[uid] |= _described(video, f"{source.locate(path)}: video {uid}")
            except ValueError as error:  # reported when it is opened, so the others are read
                found[uid]["fault"] = str(error)
    return found


def _described(video: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The details of a video, by its entry; ValueError naming a field of another type."""
    intervals = optional_field(video, "redacted_intervals", where, list) or []
    scenarios = optional_field(video, "scenarios", where, list) or []
    if not all(isinstance(scenario, str) for scenario in scenarios):
        raise ValueError(f"{where}: its scenarios {scenarios} are not all text; download it again")
    return {
        "person": video.get("fb_participant_id"),
        "device": optional_field(video, "device", where, str),
        "duration_s": optional_field(video, "duration_sec", where, float),
        "scenarios": [activity_name(scenario) for scenario in scenarios],
        "components": len(optional_field(video, "video_components", where, list) or []),
        "stereo": bool(video.get("is_stereo")),
        "redacted_s": sum(
            field_of(one, "end_sec", f"{where}: a redacted interval", float)
            - field_of(one, "start_sec", f"{where}: a redacted interval", float)
            for one in intervals
        ),
    }


def _narration_ranges(source: Source, path: str, wanted: set[str]) -> dict[str, ByteRange]:
    """Where in narration.json the narrations of each wanted video are."""
    ranges = {}
    for member in find_members(source, path, inside="videos"):
        if (uid := str(member.keys[-1])) in wanted:
            ranges[uid] = member.span
    return ranges


def _notes(details: Mapping[str, Any]) -> list[str]:
    """Notes on what ego4d.json says of the video."""
    if not details["metadata"]:
        return ["not in ego4d.json: person, scenario and components unknown"]
    notes = []
    if details["stereo"]:
        notes.append("stereoscopic: each frame holds two pictures side by side")
    if details["redacted_s"]:
        notes.append(f"{details['redacted_s']:.1f} s of the video are redacted")
    return notes


def _labels(details: Mapping[str, Any], notes: list[str]) -> tuple[LabelSpan, ...]:
    """The scenario, if there is one only: the times of several are not in the data."""
    scenarios, duration_s = details.get("scenarios", ()), details.get("duration_s")
    if len(scenarios) == 1 and duration_s:
        return (LabelSpan(0.0, float(duration_s), scenarios[0]),)
    if scenarios:
        notes.append(f"no label, of several scenarios: {'; '.join(scenarios)}")
    return ()


def _devices(
    source: Source, details: Mapping[str, Any], notes: list[str]
) -> tuple[tuple[Device, ...], str]:
    """The camera's IMU, if its times in the video are known; and how they were found."""
    path = details["imu"]
    if path is None:
        notes.append("no IMU file; download it with --datasets imu")
        return (), ""
    rows, timed, empty = _survey(source, path)
    components = details.get("components") or 0
    if missing := sorted(set(range(components)) - rows.keys()):
        notes.append(f"no IMU in components {', '.join(map(str, missing))} of {components}")
    for sensor in empty:
        notes.append(f"no values of the {sensor}")
    clock = _CANONICAL
    if not timed and rows.keys() == {0} and components == 1:
        clock = _COMPONENT
        notes.append(f"{_CANONICAL} is empty: {_COMPONENT} taken, of the only component")
    else:
        for component in sorted(rows.keys() - timed):
            notes.append(
                f"IMU of component {component} left out: {_CANONICAL} of its {rows[component]} "
                "rows is empty, and where it begins in the video is unknown"
            )
        if not timed:
            return (), ""
    sensors = tuple(
        Sensor(channels, unit, partial(_samples, source, path, clock, columns))
        for name, (channels, unit, columns) in _SENSORS.items()
        if name not in empty
    )
    device = Device(details.get("device") or "camera", placements.HEAD, sensors)
    return (device,), f"{clock} of the IMU taken as time in the video; {_LAG}"


def _survey(source: Source, path: str) -> tuple[dict[int, int], set[int], list[str]]:
    """Rows of each component, the components with canonical times, the sensors without values."""
    rows: dict[int, int] = defaultdict(int)
    timed: set[int] = set()
    firsts = {name: columns[0] for name, (_, _, columns) in _SENSORS.items()}
    filled: set[str] = set()
    columns = ("component_idx", _CANONICAL, *firsts.values())
    for piece in read_table(source, path, columns=columns, null_values=_NULLS):
        component = piece["component_idx"]
        if not (np.isfinite(component) & (component >= 0)).all():
            raise ValueError(
                f"{source.locate(path)}: component_idx is empty or negative in some rows; download "
                "it again"
            )
        for number in np.unique(component):
            here = component == number
            rows[int(number)] += int(here.sum())
            if np.isfinite(piece[_CANONICAL][here]).any():
                timed.add(int(number))
        filled |= {name for name, first in firsts.items() if np.isfinite(piece[first]).any()}
    return dict(rows), timed, [name for name in firsts if name not in filled]


def _samples(source: Source, path: str, clock: str, columns: Sequence[str]) -> Iterator[Samples]:
    for piece in read_table(source, path, columns=(clock, *columns), null_values=_NULLS):
        yield Samples(piece[clock] / 1000.0, np.stack([piece[name] for name in columns], axis=1))


READER = Ego4dReader
