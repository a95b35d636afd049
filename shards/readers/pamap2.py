"""PAMAP2: three Colibri units at wrist, chest and ankle, 9 people, 18 activities, 100 Hz.

Source: Reiss and Stricker, "Introducing a New Benchmarked Dataset for Activity Monitoring", ISWC
2012; UCI repository, "PAMAP2 Physical Activity Monitoring", readme.pdf. The 12 activities that all
people were asked for lie in ``Protocol/subject101.dat`` and so on, six more that some people did in
``Optional/``. A row has 54 numbers between spaces (counted from 0):

    0 time (s), 1 activity, 2 heart rate; then 17 of hand (from 3), chest (20) and ankle (37):
    temperature, acceleration of +-16 g (3, m/s2), of +-6 g (3, m/s2), gyroscope (3, rad/s),
    magnetometer (3, uT), orientation (4, not valid)

NaN is a record lost on the way from the wireless unit. The 6 g accelerometer saturates in running
and jumping, and is less exactly calibrated, so the other one is read, as the authors recommend.
"hand" is the wrist of the dominant arm, "ankle" that of the dominant side.
"""

from __future__ import annotations

import re
from typing import ClassVar

from primus_scale.signal.units import UNIT_FACTORS
from shards import placements
from shards.readers.matrix import MatrixLayout, MatrixReader, Wearable
from shards.readers.rows import checked_listing
from shards.recording import RecordingRef

RATE_HZ = 100.0
ACTIVITIES: dict[int, str | None] = {
    0: None,  # transient, between two activities
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic walking",
    9: "watching tv",
    10: "working at a computer",
    11: "driving",
    12: "walking upstairs",
    13: "walking downstairs",
    16: "vacuum cleaning",
    17: "ironing",
    18: "folding laundry",
    19: "cleaning the house",
    20: "playing soccer",
    24: "rope jumping",
}
LAYOUT = MatrixLayout(
    columns=54,
    wearables=(
        Wearable("hand", placements.WRIST, acc=4, gyr=10),
        Wearable("chest", placements.CHEST, acc=21, gyr=27),
        Wearable("ankle", placements.ANKLE, acc=38, gyr=44),
    ),
    label=1,
    activities=ACTIVITIES,
    rate_hz=RATE_HZ,
    acc_unit="m/s2",
    gyr_unit="rad/s",
    acc_limit=16 * UNIT_FACTORS["g"][1],
    time=0,
)
_FILE = re.compile(r"(?:.*/)?subject(\d+)\.dat")


class Pamap2Reader(MatrixReader):
    """One recording for each file, named ``subject101-protocol`` or ``subject101-optional``.

    So by its folder, in small letters, and in any other folder by the name of that one.
    """

    name: ClassVar[str] = "pamap2"
    layout: ClassVar[MatrixLayout] = LAYOUT
    sync: ClassVar[str] = "time stamps of the file (s), which all three units share"

    def recordings(self) -> list[RecordingRef]:
        """The files of both folders; opens none."""
        refs = [
            RecordingRef(
                f"subject{match[1]}-{self.source.folder(path).lower()}",
                (path,),
                {"person": int(match[1])},
            )
            for path in self.source.find("**/subject*.dat")
            if (match := _FILE.fullmatch(path))
        ]
        return checked_listing(self.source, refs, "Protocol/subject101.dat (nor of others)")


READER = Pamap2Reader
