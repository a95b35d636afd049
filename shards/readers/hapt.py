"""UCI HAPT, raw data: a phone at the waist, 30 people, 6 activities and 6 transitions, 50 Hz.

Source: Reyes-Ortiz et al., "Transition-Aware Human Activity Recognition Using Smartphones",
Neurocomputing 2016; UCI repository, "Smartphone-Based Recognition of Human Activities and Postural
Transitions", README.txt. ``RawData/acc_exp01_user01.txt`` has a row for each sample, x, y and z
between spaces in g, ``gyro_exp01_user01.txt`` one in rad/s; both were sampled together. A line of
``RawData/labels.txt`` gives experiment, user, activity, and the first and last sample of its span.
They are taken to be counted from 1, as in MATLAB; the README does not say, and nothing in the data
decides it. (In the demo's copy, ``shards.demo.hapt``, they were counted from 0, so its labels come
20 ms later.) The people and what they did are those of UCI HAR, and have the same names in both
readers: never test on one of the two what was trained on the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

from shards import placements
from shards.files.tables import read_matrix
from shards.readers import uci
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, regular_samples
from shards.recording import (
    ACCELEROMETER,
    GYROSCOPE,
    Device,
    LabelSpan,
    Recording,
    RecordingRef,
    Sensor,
)

RATE_HZ = 50.0
ACTIVITIES = {
    **uci.ACTIVITIES,
    7: "stand to sit",
    8: "sit to stand",
    9: "sit to lie",
    10: "lie to sit",
    11: "stand to lie",
    12: "lie to stand",
}
_FILE = re.compile(
    r"(?P<folder>(?:.*/)?)acc_(?P<rest>exp(?P<experiment>\d+)_user(?P<person>\d+)\.txt)"
)


class HaptReader(Reader):
    """One recording for each experiment, named ``exp01``.

    Data set, names, people and times are those of the demo's windows, so that equal windows have
    equal uids.
    """

    name: ClassVar[str] = "hapt"
    other_files: ClassVar[tuple[str, ...]] = (
        *("activity_labels.txt", "features.txt", "features_info.txt"),
        *(f"{name}_{part}.txt" for name in ("X", "y", "subject_id") for part in ("train", "test")),
    )

    def recordings(self) -> list[RecordingRef]:
        """The experiments that have an accelerometer file; opens none."""
        other_paths = {
            *self.source.find("**/gyro_exp*_user*.txt"),
            *self.source.find("**/labels.txt"),
        }
        refs = []
        for path in self.source.find("**/acc_exp*_user*.txt"):
            if match := _FILE.fullmatch(path):
                gyroscope = f"{match['folder']}gyro_{match['rest']}"
                labels = f"{match['folder']}labels.txt"
                details = {
                    "experiment": int(match["experiment"]),
                    "person": int(match["person"]),
                    "gyroscope": gyroscope if gyroscope in other_paths else None,
                    "labels": labels,
                }
                files = (path, *sorted({gyroscope, labels} & other_paths))
                refs.append(RecordingRef(f"exp{int(match['experiment']):02d}", files, details))
        return checked_listing(self.source, refs, "RawData/acc_exp01_user01.txt (nor of others)")

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; FileNotFoundError where labels.txt is missing, which all of them need."""
        acc = read_matrix(self.source, ref.files[0], 3)
        sensors = [Sensor(ACCELEROMETER, "g", partial(regular_samples, acc, RATE_HZ))]
        notes = []
        if gyroscope := ref.details["gyroscope"]:
            gyr = read_matrix(self.source, gyroscope, 3)
            if len(gyr) != len(acc):
                raise ValueError(
                    f"{self.source.locate(gyroscope)} has {len(gyr)} rows, and "
                    f"{ref.files[0]} next to it {len(acc)}; download both again"
                )
            sensors.append(Sensor(GYROSCOPE, "rad/s", partial(regular_samples, gyr, RATE_HZ)))
        else:
            notes.append("no gyroscope file")
        labels = self._labels(ref, len(acc))
        if not labels:
            notes.append("labels.txt has no line for this experiment")
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=uci.hapt_person(ref.details["person"]),
            devices=(Device("smartphone", placements.WAIST, tuple(sensors), RATE_HZ),),
            labels=labels,
            sync=f"no times in the files: rows taken to be {1000 / RATE_HZ:g} ms apart",
            notes=tuple(notes),
        )

    def _labels(self, ref: RecordingRef, samples: int) -> tuple[LabelSpan, ...]:
        """The experiment's lines of labels.txt, in order of time."""
        path, spans = ref.details["labels"], []
        where = self.source.locate(path)
        if path not in ref.files:
            raise FileNotFoundError(f"no {where}, which holds the activities; download it again")
        table = read_matrix(self.source, path, 5)
        experiment, user = ref.details["experiment"], ref.details["person"]
        for number, (*codes, first, last) in enumerate(table.tolist(), start=1):
            if codes[:2] != [experiment, user]:
                continue
            row = f"{where}: row {number}"
            if codes[2] not in ACTIVITIES:
                raise ValueError(
                    f"{row} has the unknown activity code {codes[2]:g}; known are 1 to "
                    f"{len(ACTIVITIES)}. Correct the file, or download it again"
                )
            if not 1 <= first <= last <= samples:
                raise ValueError(
                    f"{row} has samples {first:g} to {last:g} of the {samples} in {ref.files[0]}; "
                    "download both again"
                )
            start_s, end_s = (first - 1) / RATE_HZ, (last - 1) / RATE_HZ
            spans.append(LabelSpan(start_s, end_s, ACTIVITIES[int(codes[2])]))
        return tuple(sorted(spans))


READER = HaptReader
