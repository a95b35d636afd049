"""Nymeria: everyday motion with Aria glasses on the head and a unit at each wrist, 264 people.

Source: Ma et al., "Nymeria: A Massive Collection of Multimodal Egocentric Daily Motion in the
Wild", ECCV 2024, and the README of its repository. A sequence is a folder
``<date>_<session>_<person>_<act>_<uid>`` with ``recording_{head,lwrist,rwrist}/data/motion.vrs``
(IMUs), ``recording_head/data/data.vrs`` (pictures), and ``narration/*.csv``, with times of the
head's device clock. Each unit has its own clock; time code relates them. ``recording_observer`` was
worn by another person, and is not read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import ClassVar

import numpy as np

from shards import placements
from shards.files.narrations import clean_text
from shards.files.source import Source
from shards.files.tables import read_table
from shards.files.vrs import VrsFile, imu_labels, open_vrs
from shards.readers.base import Reader
from shards.readers.rows import checked_listing
from shards.recording import Device, FrameSource, Narration, Recording, RecordingRef

PLACEMENTS = {
    "head": placements.HEAD,
    "lwrist": placements.LEFT_WRIST,
    "rwrist": placements.RIGHT_WRIST,
}
TEXTS = {
    "atomic_action": ("Describe my atomic actions",),
    "motion_narration": (
        "Describe my body posture",
        "Describe my hands/arms motion",
        "Describe my legs/feet motion",
        "Describe my focus attention",
    ),
    "activity_summarization": ("Describe my activity",),
}
HEAD = "recording_head/data/motion.vrs"
PICTURES = "recording_head/data/data.vrs"
SYNC = "the head's device clock, which pictures and narrations share; wrists by time code"
_TIMES = ("start_time", "end_time")
_FILE = re.compile(
    r"(?P<folder>(?:.*/)?)(?P<file>recording_(?:head|lwrist|rwrist)/data/motion\.vrs"
    rf"|{re.escape(PICTURES)}|narration/(?:{'|'.join(TEXTS)})\.csv)"
)
_SEQUENCE = re.compile(r"(?P<session>\d{8}_[^_]+_(?P<person>.+))_act\d+_[^_]+")


class NymeriaReader(Reader):
    """One recording for each sequence, named as its folder. A session is a person on one day.

    imu: which IMUs of each unit to read: both, left or right.
    """

    name: ClassVar[str] = "nymeria"
    other_files: ClassVar[tuple[str, ...]] = (
        *("metadata.json", "body/*", "recording_observer/*", "recording_*/mps/*"),
        *("recording_*/data/et.vrs", "recording_?wrist/data/data.vrs", "semidense_*"),
        *("*url*.json", "download_summary.json"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"text"})

    def __init__(self, source: Source, imu: str = "both") -> None:
        super().__init__(source)
        self.labels = imu_labels(imu)

    def recordings(self) -> list[RecordingRef]:
        """The sequences that have a motion.vrs; opens none."""
        files: dict[str, dict[str, str]] = defaultdict(dict)
        for pattern in ("**/recording_*/data/*.vrs", "**/narration/*.csv"):
            for path in self.source.find(pattern):
                if match := _FILE.fullmatch(path):
                    files[match["folder"]][match["file"]] = path
        refs = [
            RecordingRef(
                folder.split("/")[-2] if folder else self.source.url.rpartition("/")[2],
                tuple(sorted(paths.values())),
                {"folder": folder},
            )
            for folder, paths in files.items()
            if any(file.endswith("motion.vrs") for file in paths)
        ]
        return checked_listing(self.source, refs, f"<sequence>/{HEAD}")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; FileNotFoundError where the head's IMUs are missing.

        A wrist that is missing, or cannot be put on the head's clock, is left out with a note.
        """
        match = _SEQUENCE.fullmatch(ref.name)
        if match is None:
            raise ValueError(
                f"{self.source.url}: sequence {ref.name} is not called "
                "<date>_<session>_<person>_<act>_<uid>, so that its person is not known; name the "
                "folder as it was downloaded"
            )
        with ExitStack() as stack:
            devices, notes = self._devices(ref, stack)
            frames = self._frames(ref, stack, notes)
            narrations = self._narrations(ref, notes)
            yield Recording(
                dataset=self.name,
                name=ref.name,
                person=f"{self.name}-{match['person']}",
                devices=devices,
                session=match["session"],
                frames=frames,
                narrations=narrations,
                sync=SYNC,
                notes=tuple(notes),
            )

    def _devices(self, ref: RecordingRef, stack: ExitStack) -> tuple[tuple[Device, ...], list[str]]:
        """IMUs of the head, and of the wrists that can be put on its clock; and notes."""
        devices: list[Device] = []
        notes: list[str] = []
        head: VrsFile | None = None
        for unit, placement in PLACEMENTS.items():
            path = f"{ref.details['folder']}recording_{unit}/data/motion.vrs"
            if head is not None and path not in ref.files:
                notes.append(f"{unit}: no motion.vrs")
                continue
            file = stack.enter_context(open_vrs(self.source, path))
            if head is not None and not (head.has_time_code() and file.has_time_code()):
                which = "its" if head.has_time_code() else "the head's"
                notes.append(
                    f"{unit} left out: no time code in {which} motion.vrs, so that its "
                    "clock cannot be tied to the head's"
                )
                continue
            imus = file.imu_devices(dict.fromkeys(self.labels, placement), clock=head)
            devices += (replace(imu, name=f"{unit}-{imu.name}") for imu in imus)
            notes += (f"{unit}: {note}" for note in file.notes)
            head = head or file
        return tuple(devices), notes

    def _frames(self, ref: RecordingRef, stack: ExitStack, notes: list[str]) -> FrameSource | None:
        path = f"{ref.details['folder']}{PICTURES}"
        if path not in ref.files:
            notes.append("head: no data.vrs, so that there are no pictures")
            return None
        frames = stack.enter_context(open_vrs(self.source, path)).camera()
        if frames is None:
            notes.append("head: no pictures in data.vrs")
        return frames

    def _narrations(self, ref: RecordingRef, notes: list[str]) -> tuple[Narration, ...]:
        """The texts of all three files, cleaned, by time."""
        narrations: list[Narration] = []
        for name, columns in TEXTS.items():
            path = f"{ref.details['folder']}narration/{name}.csv"
            if path not in ref.files:
                notes.append(f"no narration/{name}.csv")
                continue
            untimed = 0
            for rows in read_table(self.source, path, columns=_TIMES, text_columns=columns):
                start_s, end_s = (rows[time] for time in _TIMES)
                timed = np.isfinite(start_s) & np.isfinite(end_s) & (end_s >= start_s)
                untimed += int((~timed).sum())
                for row in np.flatnonzero(timed).tolist():
                    texts = (clean_text(rows[column][row]) for column in columns)
                    span = float(start_s[row]), float(end_s[row])
                    narrations += (Narration(*span, text) for text in texts if text)
            if untimed:
                what = "rows left out, without times or with an end before the start"
                notes.append(f"narration/{name}.csv: {untimed} {what}")
        return tuple(sorted(narrations))


READER = NymeriaReader
