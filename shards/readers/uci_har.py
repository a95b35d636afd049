"""UCI HAR: a phone at the waist, 30 people, 6 activities, 50 Hz, cut in windows of 2.56 s.

Source: Anguita et al., "A Public Domain Dataset for Human Activity Recognition Using Smartphones",
ESANN 2013; UCI repository, README.txt and features_info.txt. The folders ``train`` and ``test``
have different people. ``subject_train.txt`` and ``y_train.txt`` give person and activity of each
window. ``Inertial Signals/{total_acc,body_gyro}_{x,y,z}_train.txt`` have its 128 samples in a row,
in g and rad/s, with noise above 20 Hz filtered out.

A window begins with the second half of the one before, unless something was left out between them.
So windows whose halves agree exactly in all six channels are joined again, and windows of any
length can be cut. The files have no times: segments follow each other in the files' order, so far
apart that no window spans two. Half a window has an activity if both windows that it belongs to
agree. People and activities are those of HAPT, so people have the same names here: never test on
one of the two what was trained on the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from shards import placements
from shards.files.tables import read_matrix
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, label_spans
from shards.readers.uci import ACTIVITIES, hapt_person
from shards.recording import (
    ACCELEROMETER,
    GYROSCOPE,
    Device,
    Recording,
    RecordingRef,
    Samples,
    Sensor,
)

RATE_HZ = 50.0
WINDOW = 128  # samples
HOP = WINDOW // 2
BETWEEN_S = 10.0  # from a segment to the next; chosen here, not in the data
_MIXED = 0  # code of halves on which two windows do not agree
_FILE = re.compile(r"(?P<folder>(?:.*/)?)subject_(?P<split>train|test)\.txt")
_SIGNALS = tuple(f"{kind}_{axis}" for kind in ("total_acc", "body_gyro") for axis in "xyz")


class JoinedWindows(NamedTuple):
    """Joined windows: values ``(n, 6)``, codes of activities ``(n,)``."""

    values: np.ndarray
    codes: np.ndarray


class UciHarReader(Reader):
    """One recording for each person, named ``train-subject01``."""

    name: ClassVar[str] = "uci_har"
    other_files: ClassVar[tuple[str, ...]] = (
        *("activity_labels.txt", "features.txt", "features_info.txt"),
        *("X_train.txt", "X_test.txt", "Inertial Signals/body_acc_?_t*.txt"),
    )

    def recordings(self) -> list[RecordingRef]:
        """The people of train and test; reads ``subject_train.txt`` and ``subject_test.txt``."""
        refs = []
        for path in self.source.find("**/subject_*.txt"):
            if not (match := _FILE.fullmatch(path)):
                continue
            folder, split = match["folder"], match["split"]
            others = [f"{folder}Inertial Signals/{name}_{split}.txt" for name in _SIGNALS]
            others.append(f"{folder}y_{split}.txt")
            there = [file for file in others if self.source.exists(file)]
            people = read_matrix(self.source, path, 1)[:, 0]
            wrong = np.flatnonzero(~((people >= 1) & (people == np.rint(people))))
            if len(wrong):
                raise ValueError(
                    f"{self.source.locate(path)}: line {wrong[0] + 1} holds {people[wrong[0]]:g}, "
                    "which is no person's number; correct it, or download it again"
                )
            for person in np.unique(people).astype(int).tolist():
                rows = np.flatnonzero(people == person)
                first, count = int(rows[0]), int(rows[-1] - rows[0] + 1)
                details = {"person": person, "first": first, "rows": count, "beside": others}
                name = f"{split}-subject{person:02d}"
                refs.append(RecordingRef(name, (path, *there), details))
        return checked_listing(self.source, refs, "train/subject_train.txt (nor of test)")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; FileNotFoundError naming the first missing file of train or test."""
        windows, codes = self._windows(ref)
        segments = join_windows(windows, codes)
        counts = [len(segment.codes) for segment in segments]
        starts = np.cumsum([0, *(count + round(BETWEEN_S * RATE_HZ) for count in counts[:-1])])
        times = [
            (start + np.arange(count)) / RATE_HZ
            for start, count in zip(starts, counts, strict=True)
        ]
        sensors = (
            Sensor(ACCELEROMETER, "g", partial(_samples, times, segments, slice(0, 3))),
            Sensor(GYROSCOPE, "rad/s", partial(_samples, times, segments, slice(3, 6))),
        )
        mixed = {_MIXED: None, **ACTIVITIES}
        all_codes = np.concatenate([segment.codes for segment in segments])
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=hapt_person(ref.details["person"]),
            devices=(Device("phone", placements.WAIST, sensors, RATE_HZ),),
            labels=label_spans(np.concatenate(times), all_codes, mixed, ref.files[0]),
            sync=f"no times in the files: rows taken to be {1000 / RATE_HZ:g} ms apart",
            notes=(
                f"{len(windows)} windows of {WINDOW} samples joined to {len(segments)} "
                f"segments, which were put {BETWEEN_S:g} s apart",
            ),
        )

    def _windows(self, ref: RecordingRef) -> tuple[np.ndarray, np.ndarray]:
        """The person's windows ``(n, 128, 6)`` and activity codes ``(n,)``."""
        for path in ref.details["beside"]:
            if path not in ref.files:
                raise FileNotFoundError(
                    f"no {self.source.locate(path)}; download the data set again, whole"
                )
        first, rows = ref.details["first"], ref.details["rows"]

        def read(path: str, columns: int) -> np.ndarray:
            return read_matrix(self.source, path, columns, skip_rows=first, max_rows=rows)

        *signals, activities = ref.details["beside"]
        own = read(ref.files[0], 1)[:, 0] == ref.details["person"]
        codes = read(activities, 1)[:, 0]
        unknown = np.flatnonzero(~np.isin(codes, list(ACTIVITIES)))
        if len(unknown):
            raise ValueError(
                f"{self.source.locate(activities)}: line {first + unknown[0] + 1} has the unknown "
                f"activity code {codes[unknown[0]]:g}; known are 1 to {len(ACTIVITIES)}. Correct "
                "the file, or download it again"
            )
        windows = np.stack([read(path, WINDOW) for path in signals], axis=2)
        return windows[own], codes[own].astype(np.int64)


def join_windows(windows: np.ndarray, codes: np.ndarray) -> list[JoinedWindows]:
    """Windows ``(n, 128, c)`` in order, each joined to the one before where halves are equal.

    codes: activity of each window ``(n,)``. Half a window that belongs to two of different
    activities gets the code 0.
    """
    joined = (windows[:-1, HOP:] == windows[1:, :HOP]).all(axis=(1, 2))
    segments = []
    for rows in np.split(np.arange(len(windows)), np.flatnonzero(~joined) + 1):
        values = np.concatenate([windows[rows[0], :HOP], *windows[rows, HOP:]])
        before, after = codes[[rows[0], *rows]], codes[[*rows, rows[-1]]]
        halves = np.where(before == after, before, _MIXED)
        segments.append(JoinedWindows(values, np.repeat(halves, HOP)))
    return segments


def _samples(
    times: list[np.ndarray], segments: list[JoinedWindows], columns: slice
) -> Iterator[Samples]:
    for time_s, segment in zip(times, segments, strict=True):
        yield Samples(time_s, segment.values[:, columns])


READER = UciHarReader
