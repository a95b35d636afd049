"""MotionSense: a phone in the front pocket of the trousers, 24 people, 6 activities, 50 Hz.

Source: Malekzadeh et al., "Mobile Sensor Data Anonymization", IoTDI 2019; the authors' repository,
"motion-sense", README. ``A_DeviceMotion_data/<activity>_<trial>/sub_<person>.csv`` is what Apple's
CMDeviceMotion gives: columns ``attitude.*``, ``gravity.*`` and ``userAcceleration.*`` (g) and
``rotationRate.*`` (rad/s), after one without a name that counts the rows. Total acceleration is
gravity plus that of the user. It has the sign of iOS: at rest it points down, where that of all
other data sets points up, so its unit is taken to be -g; rotation has the usual sign. Folders B and
C hold raw data of the same trials, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import numpy as np

from shards import placements
from shards.files.tables import read_table
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
    "dws": "walking downstairs",
    "ups": "walking upstairs",
    "sit": "sitting",
    "std": "standing",
    "wlk": "walking",
    "jog": "jogging",
}
_FILE = re.compile(r"(?:.*/)?(([a-z]+)_\d+)/sub_(\d+)\.csv")
_OTHER_FOLDERS = re.compile(r"(?:.*/)?(?:B_Accelerometer|C_Gyroscope)_data/")
_GRAVITY = tuple(f"gravity.{axis}" for axis in "xyz")
_USER = tuple(f"userAcceleration.{axis}" for axis in "xyz")
_ROTATION = tuple(f"rotationRate.{axis}" for axis in "xyz")


class MotionSenseReader(Reader):
    """One recording for each file, named ``wlk_7-sub01``."""

    name: ClassVar[str] = "motionsense"
    other_files: ClassVar[tuple[str, ...]] = (
        *("B_Accelerometer_data*", "C_Gyroscope_data*", "data_subjects_info.csv", "codes/*"),
    )

    def recordings(self) -> list[RecordingRef]:
        """The trials of all people; opens none."""
        refs = [
            RecordingRef(
                f"{match[1]}-sub{int(match[3]):02d}",
                (path,),
                {"activity": match[2], "person": int(match[3])},
            )
            for path in self.source.find("**/sub_*.csv")
            if (match := _FILE.fullmatch(path)) and not _OTHER_FOLDERS.match(path)
        ]
        looked_for = "A_DeviceMotion_data/wlk_7/sub_1.csv (nor of others)"
        return checked_listing(self.source, refs, looked_for)

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording, of one activity from its first to its last row."""
        path, activity = ref.files[0], ref.details["activity"]
        if activity not in ACTIVITIES:
            raise ValueError(
                f"{self.source.locate(path)}: unknown activity {activity}; known are "
                f"{', '.join(ACTIVITIES)}. Correct the name of its folder"
            )
        pieces = list(read_table(self.source, path, columns=(*_GRAVITY, *_USER, *_ROTATION)))
        columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

        def vectors(names: tuple[str, ...]) -> np.ndarray:
            return np.stack([columns[name] for name in names], axis=1)

        acc, gyr = vectors(_GRAVITY) + vectors(_USER), vectors(_ROTATION)
        sensors = (
            Sensor(ACCELEROMETER, "-g", partial(regular_samples, acc, RATE_HZ)),
            Sensor(GYROSCOPE, "rad/s", partial(regular_samples, gyr, RATE_HZ)),
        )
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=f"{self.name}-{ref.details['person']}",
            devices=(Device("phone", placements.POCKET, sensors, RATE_HZ),),
            session=f"sub{ref.details['person']:02d}",  # the trials of a person are one wearing
            labels=(LabelSpan(0.0, (len(acc) - 1) / RATE_HZ, ACTIVITIES[activity]),),
            sync=f"no times in the file: rows taken to be {1000 / RATE_HZ:g} ms apart",
            notes=("acceleration has the sign of iOS, down at rest: its sign was turned",),
        )


READER = MotionSenseReader
