"""MHEALTH: Shimmer2 units at chest, left ankle and right wrist, 10 people, 12 activities, 50 Hz.

Source: Banos et al., "mHealthDroid", IWAAL 2014; UCI repository, "MHEALTH", README.txt. A file a
person, ``mHealth_subject1.log``, has 24 numbers between tabs in a row and no time (columns counted
from 1):

    1-3 acceleration at the chest (m/s2), 4-5 ECG (mV); 6-8 acceleration, 9-11 gyroscope (deg/s),
    12-14 magnetometer at the left ankle; 15-23 the same at the right lower arm, worn as a watch;
    24 activity

The unit at the chest gives no gyroscope. The published gyroscope values are remarkably small for
deg/s, so a recording in which they stay below what any walk exceeds says so in its notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from shards import placements
from shards.readers.matrix import MatrixLayout, MatrixReader, Wearable
from shards.readers.rows import checked_listing
from shards.recording import GYROSCOPE, Device, RecordingRef

RATE_HZ = 50.0
ACTIVITIES: dict[int, str | None] = {
    0: None,  # null class
    1: "standing",
    2: "sitting",
    3: "lying",
    4: "walking",
    5: "climbing stairs",  # up and down
    6: "bending the waist forward",
    7: "raising the arms to the front",
    8: "bending the knees",
    9: "cycling",
    10: "jogging",
    11: "running",
    12: "jumping",  # to the front and back
}
LAYOUT = MatrixLayout(
    columns=24,
    wearables=(
        Wearable("chest", placements.CHEST, acc=0),
        Wearable("ankle-left", placements.LEFT_ANKLE, acc=5, gyr=8),
        Wearable("wrist-right", placements.RIGHT_WRIST, acc=14, gyr=17),
    ),
    label=23,
    activities=ACTIVITIES,
    rate_hz=RATE_HZ,
    acc_unit="m/s2",
    gyr_unit="deg/s",
)
SLOWEST_WALK = 50.0  # deg/s that a wrist or ankle exceeds now and then in any walk
_FILE = re.compile(r"(?:.*/)?mHealth_subject(\d+)\.log")


class MhealthReader(MatrixReader):
    """One recording for each person, named ``subject01``."""

    name: ClassVar[str] = "mhealth"
    layout: ClassVar[MatrixLayout] = LAYOUT
    sync: ClassVar[str] = f"no times in the file: rows taken to be {1000 / RATE_HZ:g} ms apart"

    def recordings(self) -> list[RecordingRef]:
        """The files by person; opens none."""
        refs = [
            RecordingRef(f"subject{int(match[1]):02d}", (path,), {"person": int(match[1])})
            for path in self.source.find("**/mHealth_subject*.log")
            if (match := _FILE.fullmatch(path))
        ]
        return checked_listing(self.source, refs, "mHealth_subject1.log (nor of others)")

    def doubts(self, devices: tuple[Device, ...]) -> Iterator[str]:
        """Gyroscopes whose values are too small for their unit."""
        for device in devices:
            for sensor in device.sensors:
                if sensor.channels != GYROSCOPE:
                    continue
                largest = max(float(np.nanmax(np.abs(chunk.values))) for chunk in sensor.read())
                if largest < SLOWEST_WALK:
                    yield (
                        f"gyroscope of {device.name} stays within {largest:.3g} deg/s, too little "
                        "for walking: its unit, deg/s after the data set's README, is doubtful"
                    )


READER = MhealthReader
