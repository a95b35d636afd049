"""Ego-Exo4D v2: takes of skilled activities in Aria glasses, with atomic descriptions, 740 people.

Source: Grauman et al., CVPR 2024; documentation at docs.ego-exo4d-data.org ("Metadata", "Takes",
"Downscaled Takes", "Atomic Action Descriptions", tutorials). Point --src at what ``egoexo --parts
metadata annotations captures take_vrs_noimagestream downscaled_takes/448`` downloads.

- ``takes.json``: a list of takes, each with its person, task, capture and timesync rows.
- ``takes/<take>/aria0N.vrs``, ``aria0N_noimagestreams.vrs``: two IMUs, in device time.
- ``takes/<take>/frame_aligned_videos/aria0N_214-1.mp4``, and smaller in ``downscaled/448/``
  below: the RGB camera at 30 fps. The video is upright. It was turned by 90 degrees from the sensor
  (tutorial "Undistort frames" turns it back to use the sensor's calibration).
- ``captures/<capture>/timesync.csv``: a row for each time step, with the device times of all
cameras.
  Frame i of a take is row timesync_start_idx + 1 + i, up to timesync_end_idx (excluded).
- ``annotations/atomic_descriptions_{train,val}.json``: what people do, written by several
  annotators for each take; times are seconds of the video, with errors of 1 or 2 s.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from shards import placements
from shards.files.json_members import ByteRange, field_of, find_members, optional_field, read_member
from shards.files.narrations import clean_narrations
from shards.files.source import Source
from shards.files.tables import read_table
from shards.files.video import Video
from shards.files.vrs import open_vrs
from shards.readers.base import Reader
from shards.readers.people import person_or_unknown
from shards.readers.rows import checked_listing
from shards.recording import Device, FrameSource, LabelSpan, Narration, Recording, RecordingRef

RATE_FPS = 30.0
TASKS = {  # parent_task_id
    1000: "cooking",
    2000: "health",
    4000: "bike repair",
    5000: "music",
    6000: "basketball",
    7000: "climbing",
    8000: "soccer",
    9000: "dance",
}
PLACEMENTS = {"imu-left": placements.HEAD, "imu-right": placements.HEAD}
_SPLITS = ("train", "val")
_VRS = re.compile(r"(?P<take>takes/[^/]+)/(?P<camera>aria\d+)(?P<kind>_noimagestreams)?\.vrs")
_VIDEO = re.compile(
    r"(?P<take>takes/[^/]+)/frame_aligned_videos/(?P<kind>downscaled/448/)?"
    r"(?P<camera>aria\d+)_214-1\.mp4"
)


class EgoExo4dReader(Reader):
    """One recording for each take with IMU or video below the source, with the name of the take.

    timesync_offset: rows from timesync_start_idx to that of the first frame. full_scale: decode the
    video in full size also where the downscaled one is there. quarter_turns: turns of 90 degrees
    anticlockwise that make pictures upright, if they are not. only_visible: leave out descriptions
    of what the wearer's camera does not see (field ``ego_visible``).
    """

    name: ClassVar[str] = "egoexo4d"
    other_files: ClassVar[tuple[str, ...]] = (
        *("takes.json", "takes_dropped.json", "captures.json", "participants.json"),
        *("physical_setting.json", "visual_objects.json", "metadata.json", "manifest*"),
        *("captures/*/timesync.csv", "captures/*/post_surveys.csv", "captures/*/trajectory/*"),
        *("takes/*/aria??.vrs", "takes/*/aria??_noimagestreams.vrs", "takes/*/audio/*"),
        *("takes/*/trajectory/*", "takes/*/eye_gaze/*", "takes/*/hand_tracking/*"),
        *("frame_aligned_videos/aria??_*.mp4", "frame_aligned_videos/downscaled/448/aria??_*.mp4"),
        *("frame_aligned_videos/*cam??.mp4", "frame_aligned_videos/*gp??.mp4"),
        *(f"atomic_descriptions_{split}.json" for split in ("train", "val", "latest")),
        *("annotations/keystep_*", "annotations/splits*"),
        *("annotations/expert_commentary*", "annotations/proficiency_*", "annotations/relations_*"),
        *("annotations/ego_pose/*", "annotations/correspondence/*", "annotations/narrate_and_act*"),
        *("features/*", "takes/*/aria??*health*", "takes/*.flac", "takes/*.wav"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"text"})

    def __init__(
        self,
        source: Source,
        timesync_offset: int = 1,
        full_scale: bool = False,
        quarter_turns: int = 0,
        only_visible: bool = False,
    ) -> None:
        super().__init__(source)
        self._timesync_offset = timesync_offset
        self._full_scale = full_scale
        self._quarter_turns = quarter_turns
        self._only_visible = only_visible

    def recordings(self) -> list[RecordingRef]:
        """The takes, without those that takes.json marks as dropped; opens none.

        takes.json and the descriptions are read once, in pieces.
        """
        if not self.source.exists("takes.json"):
            raise FileNotFoundError(
                f"no {self.source.locate('takes.json')}; point --src at the folder that the egoexo "
                "command downloads to, or download it with --parts metadata"
            )
        cameras = self._cameras()
        timesyncs = set(self.source.find("captures/*/timesync.csv"))
        descriptions = self._descriptions()
        refs, folders = [], set()
        for member in find_members(self.source, "takes.json"):
            take = member.value()
            where = f"{self.source.locate('takes.json')}: take number {member.keys[0]}"
            name = field_of(take, "take_name", where, str)
            folders.add(str(take.get("root_dir")))
            if take.get("is_dropped"):
                continue
            try:
                found = cameras.get(field_of(take, "root_dir", where, str))
                details = _described(take, found, where) if found else None
            except ValueError as error:  # reported when it is opened, so the others are read
                refs.append(RecordingRef(name, ("takes.json",), {"fault": str(error)}))
                continue
            if details is None:
                continue
            timesync = f"captures/{details['capture']}/timesync.csv"
            details["timesync"] = timesync if timesync in timesyncs else None
            uid = details.pop("uid")
            details["descriptions"] = None if descriptions is None else descriptions.get(uid, [])
            files = [path for paths in details["cameras"].values() for path in paths.values()]
            files += [details["timesync"], *(path for path, *_ in details["descriptions"] or ())]
            refs.append(RecordingRef(name, tuple(filter(None, files)), details))
        missing = sorted(cameras.keys() - folders)
        self.left_out = [f"{folder}: no take of takes.json is in it" for folder in missing]
        return checked_listing(self.source, refs, "takes/<take>/aria01_noimagestreams.vrs")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The take; its VRS file is open inside the block."""
        if "fault" in ref.details:
            raise ValueError(ref.details["fault"])
        cameras = ref.details["cameras"]
        if len(cameras) > 1:
            raise ValueError(
                f"{self.source.locate(ref.files[0])}: {' and '.join(cameras)} recorded this take, "
                "and takes.json does not tell the wearer's; take the files of the others out"
            )
        [(camera, paths)] = cameras.items()
        notes: list[str] = []
        times_s = self._frame_times(ref, camera, notes)
        with ExitStack() as stack:
            devices: tuple[Device, ...] = ()
            frames: FrameSource | None = None
            if vrs := paths.get("vrs"):
                file = stack.enter_context(open_vrs(self.source, vrs))
                devices, frames = file.imu_devices(PLACEMENTS), file.camera()
                notes += file.notes
            else:
                notes.append("no VRS file; download it with --parts take_vrs_noimagestream")
            if (video := paths.get("video")) and times_s is not None:
                frames = Video(
                    partial(self.source.open, video),
                    self.source.locate(video),
                    quarter_turns=self._quarter_turns,
                    times_s=times_s,
                )
            elif video is None:
                notes.append("no aligned video" + ("; pictures of the VRS file" if frames else ""))
            yield Recording(
                dataset=self.name,
                name=ref.name,
                person=person_or_unknown(self.name, ref.details["person"], notes),
                capture=ref.details["capture"] or "",
                devices=devices,
                frames=frames,
                narrations=self._narrations(ref, times_s, notes),
                labels=_labels(ref, devices, times_s, notes),
                sync=self._sync(times_s),
                notes=tuple(notes),
            )

    def _cameras(self) -> dict[str, dict[str, dict[str, str]]]:
        """The files to use, "vrs" and "video", by the take's folder and the name of the glasses."""
        found: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
        scale = "" if self._full_scale else "downscaled/448/"
        for pattern in ("*_214-1.mp4", "downscaled/448/*_214-1.mp4"):
            for path in self.source.find(f"takes/*/frame_aligned_videos/{pattern}"):
                if match := _VIDEO.fullmatch(path):
                    files = found[match["take"]][match["camera"]]
                    if "video" not in files or (match["kind"] or "") == scale:
                        files["video"] = path
        for path in self.source.find("takes/*/aria*.vrs"):
            if match := _VRS.fullmatch(path):
                files = found[match["take"]][match["camera"]]
                # The file without pictures is enough, unless there is no video.
                if "vrs" not in files or bool(match["kind"]) == ("video" in files):
                    files["vrs"] = path
        return {take: dict(cameras) for take, cameras in found.items()}

    def _descriptions(self) -> dict[str, list[tuple[str, int, int]]] | None:
        """File and byte range of each take's descriptions, by uid; None where there is no file."""
        paths = [f"annotations/atomic_descriptions_{split}.json" for split in _SPLITS]
        present = [path for path in paths if self.source.exists(path)]
        found = defaultdict(list)
        for path in present:
            for member in find_members(self.source, path, inside="annotations"):
                found[str(member.keys[-1])].append((path, *member.span))
        return found if present else None

    def _frame_times(self, ref: RecordingRef, camera: str, notes: list[str]) -> np.ndarray | None:
        """Device times of the frames, s, NaN where there is none; None if no frame has one."""
        path, (start, end) = ref.details["timesync"], ref.details["rows"]
        if path is None or start is None or end is None:
            what = "timesync.csv of its capture" if path is None else "timesync rows in takes.json"
            notes.append(f"no {what}: no times of frames and descriptions")
            return None
        if (first := start + self._timesync_offset) < 0:
            raise ValueError(
                f"{self.source.locate(path)}: take {ref.name} would begin before its first row; "
                f"correct option timesync_offset={self._timesync_offset}"
            )
        column = f"{camera}_214-1_capture_timestamp_ns"
        row, pieces = 0, [np.empty(0)]
        for piece in read_table(self.source, path, columns=(column,)):
            pieces.append(piece[column][max(first - row, 0) : max(end - row, 0)])
            row += len(piece[column])
            if row >= end:
                break
        times_s = np.concatenate(pieces) / 1e9
        before_s = np.fmax.accumulate(np.concatenate([[-math.inf], times_s]))[:-1]
        late = times_s <= before_s
        times_s[late] = np.nan
        for count, what in (
            (max(end - row, 0), "after the end of timesync.csv"),
            (int(late.sum()), "not later than a frame before"),
            (int(np.isnan(times_s).sum() - late.sum()), "without a device time"),
        ):
            if count:
                notes.append(f"frames left out: {count}, {what}")
        if np.isfinite(times_s).any():
            return times_s
        notes.append("no frame of the take has a device time")
        return None

    def _narrations(
        self, ref: RecordingRef, times_s: np.ndarray | None, notes: list[str]
    ) -> tuple[Narration, ...]:
        """What the wearer does, by all annotators, sorted by device time."""
        ranges = ref.details["descriptions"]
        if ranges is None:
            notes.append("no atomic descriptions; download them with --parts annotations")
        elif not ranges:
            notes.append("no atomic descriptions of this take")
        if not ranges or times_s is None:
            return ()
        frames = np.flatnonzero(np.isfinite(times_s))
        frames_s = times_s[frames]
        kept, unseen, left_out = [], 0, Counter[str]()
        for path, *span in ranges:
            where = f"{self.source.locate(path)}: a description of {ref.name}"
            annotations = read_member(self.source, path, ByteRange(*span))
            if not isinstance(annotations, list):
                raise ValueError(f"{where} is not in a list of annotations; download it again")
            for annotation in annotations:
                entries = field_of(annotation, "descriptions", where, list)
                rejected = _is_set(annotation.get("rejected"))
                for entry in entries:
                    fault = "rejected" if rejected else _fault(entry, where)
                    frame = math.nan if fault else entry["timestamp"] * RATE_FPS
                    if not fault and not frames[0] <= frame <= frames[-1]:
                        fault = "outside the frames"
                    hidden = not fault and _is_unset(entry.get("ego_visible"))
                    if hidden and self._only_visible:
                        fault = "not visible to the wearer's camera"
                    if fault:
                        left_out[fault] += 1
                        continue
                    time_s = float(np.interp(frame, frames, frames_s))
                    kept.append(Narration(time_s, time_s, entry["text"]))
                    unseen += hidden
        narrations, cleaned = clean_narrations(sorted(kept))
        notes += [f"descriptions left out: {n}, {what}" for what, n in sorted(left_out.items())]
        notes += cleaned
        if unseen:
            notes.append(f"descriptions kept: {unseen}, not visible to the wearer's camera")
        return narrations

    def _sync(self, times_s: np.ndarray | None) -> str:
        if times_s is None:
            return "device time of the glasses"
        return (
            "device time of the glasses; frame i of the video taken as row timesync_start_idx + "
            f"{self._timesync_offset} + i of timesync.csv, descriptions (right to 1 or 2 s) as "
            f"seconds of the video at {RATE_FPS:g} fps"
        )


def _described(
    take: Mapping[str, Any], found: Mapping[str, dict[str, str]], where: str
) -> dict[str, Any]:
    """The details of a take, from its entry; ValueError naming a field of another type.

    found: the files that are here, by camera.
    """
    capture = optional_field(take, "capture", where, dict) or {}
    videos = optional_field(take, "frame_aligned_videos", where, dict) or {}
    named = {key: found[key] for key in videos if key in found}
    return {
        "uid": field_of(take, "take_uid", where, str),
        "person": take.get("participant_uid"),
        "task": optional_field(take, "parent_task_id", where, int),
        "capture": optional_field(capture, "capture_name", where, str),
        # The wearer's glasses, if other people's glasses recorded the take as well.
        "cameras": named or dict(found),
        "rows": [
            optional_field(take, f"timesync_{end}_idx", where, int) for end in ("start", "end")
        ],
    }


def _is_set(flag: Any) -> bool:
    """Whether a flag is true. Flags are true and false, 1 and 0, or these as text."""
    return str(flag).lower() in ("1", "true")


def _is_unset(flag: Any) -> bool:
    """Whether a flag is given and false."""
    return str(flag).lower() in ("0", "false")


def _fault(entry: Any, where: str) -> str | None:
    """Why a description is not used; None if it is used."""
    text, time_s = field_of(entry, "text", where), field_of(entry, "timestamp", where)
    subject = entry.get("subject", entry.get("narration_subject"))  # as the documentation calls it
    if _is_set(entry.get("unsure")):
        return "unsure"
    if subject != "C":
        return "of another person" if subject else "without a subject"
    if not isinstance(text, str):
        return "without text"
    if not isinstance(time_s, int | float) or not math.isfinite(time_s):
        return "without a time"
    return None


def _labels(
    ref: RecordingRef, devices: tuple[Device, ...], times_s: np.ndarray | None, notes: list[str]
) -> tuple[LabelSpan, ...]:
    """The task, from the first frame to the last, or over the IMU where frames have no times."""
    task = ref.details["task"]
    if task not in TASKS:
        notes.append(f"no label: parent_task_id is {task}, known are {', '.join(map(str, TASKS))}")
        return ()
    if times_s is not None:
        span_s = np.nanmin(times_s), np.nanmax(times_s)
    elif devices:
        chunks = [chunk.time_s for chunk in devices[0].sensors[0].read()]
        span_s = min(map(np.min, chunks)), max(map(np.max, chunks))
    else:
        return ()
    return (LabelSpan(float(span_s[0]), float(span_s[1]), TASKS[task]),)


READER = EgoExo4dReader
