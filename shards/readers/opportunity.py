"""Opportunity: body-worn units and accelerometers, 4 people in a kitchen, locomotion, 30 Hz.

Source: Roggen et al., "Collecting Complex Activity Datasets in Highly Rich Networked Sensor
Environments", INSS 2010; UCI repository, "OPPORTUNITY Activity Recognition", column_names.txt and
label_legend.txt. A file a run, ``dataset/S1-ADL1.dat`` to ``S4-Drill.dat``, has 250 numbers between
spaces in a row (columns counted from 1):

    1 time (ms); 2-37 twelve accelerometers by Bluetooth (3 each, mg); 38-102 five Xsens units, 13
    columns each: acceleration (3, mg), gyroscope (3), magnetometer (3), quaternion (4); 103-134 two
    InertiaCubes on the shoes; 135-243 sensors in objects and furniture; 244 locomotion;
    245-250 activities of other levels

The gyroscopes' unit is "unknown" in column_names.txt, which says that they were multiplied by 1000.
The acceleration of the same units is there said to have come in m/s2, as Xsens units give it along
with rad/s; so the values are read as mrad/s, and each recording says so. The shoes' units, of other
conventions, are left out. NaN is a record lost by radio.
"""

from __future__ import annotations

import re
from typing import ClassVar

from shards import placements
from shards.readers.matrix import MatrixLayout, MatrixReader, Wearable
from shards.readers.rows import checked_listing
from shards.recording import Device, RecordingRef

RATE_HZ = 30.0
LOCOMOTION: dict[int, str | None] = {
    0: None,  # none of these, or in between
    1: "standing",
    2: "walking",
    4: "sitting",
    5: "lying",
}
# Places are counted from 0 here, as everywhere in the code.
_UNITS = (
    Wearable("back", placements.BACK, acc=37, gyr=40),
    Wearable("upper-arm-right", placements.RIGHT_UPPER_ARM, acc=50, gyr=53),
    Wearable("forearm-right", placements.RIGHT_FOREARM, acc=63, gyr=66),
    Wearable("upper-arm-left", placements.LEFT_UPPER_ARM, acc=76, gyr=79),
    Wearable("forearm-left", placements.LEFT_FOREARM, acc=89, gyr=92),
)
# In the names of columns a caret means the upper, an underscore the lower of two places.
_ACCELEROMETERS = (
    Wearable("acc-knee-right-upper", placements.RIGHT_THIGH, acc=1),  # RKN^
    Wearable("acc-hip", placements.HIP, acc=4),  # HIP
    Wearable("acc-upper-arm-left-upper", placements.LEFT_UPPER_ARM, acc=7),  # LUA^
    Wearable("acc-upper-arm-right-lower", placements.RIGHT_UPPER_ARM, acc=10),  # RUA_
    Wearable("acc-hand-left", placements.LEFT_HAND, acc=13),  # LH
    Wearable("acc-back", placements.BACK, acc=16),  # BACK
    Wearable("acc-knee-right-lower", placements.RIGHT_SHIN, acc=19),  # RKN_
    Wearable("acc-wrist-right", placements.RIGHT_WRIST, acc=22),  # RWR
    Wearable("acc-upper-arm-right-upper", placements.RIGHT_UPPER_ARM, acc=25),  # RUA^
    Wearable("acc-upper-arm-left-lower", placements.LEFT_UPPER_ARM, acc=28),  # LUA_
    Wearable("acc-wrist-left", placements.LEFT_WRIST, acc=31),  # LWR
    Wearable("acc-hand-right", placements.RIGHT_HAND, acc=34),  # RH
)
LAYOUT = MatrixLayout(
    columns=250,
    wearables=_UNITS + _ACCELEROMETERS,
    label=243,
    activities=LOCOMOTION,
    rate_hz=RATE_HZ,
    acc_unit="mg",
    gyr_unit="mrad/s",
    time=0,
    time_unit_s=1e-3,
)
_FILE = re.compile(r"(?:.*/)?S([1-4])-(ADL[1-5]|Drill)\.dat")


class OpportunityReader(MatrixReader):
    """One recording for each run of a person, named ``S1-ADL1``."""

    name: ClassVar[str] = "opportunity"
    other_files: ClassVar[tuple[str, ...]] = (
        *("column_names.txt", "label_legend.txt", "doc/*", "scripts/*"),
    )
    layout: ClassVar[MatrixLayout] = LAYOUT
    sync: ClassVar[str] = "time stamps of the file (ms), which all sensors share"

    def recordings(self) -> list[RecordingRef]:
        """The runs of all people; opens none."""
        refs = [
            RecordingRef(f"S{match[1]}-{match[2]}", (path,), {"person": int(match[1])})
            for path in self.source.find("**/S*-*.dat")
            if (match := _FILE.fullmatch(path))
        ]
        return checked_listing(self.source, refs, "dataset/S1-ADL1.dat (nor of others)")

    def doubts(self, devices: tuple[Device, ...]) -> tuple[str, ...]:
        """The unit of the gyroscopes."""
        return ("gyroscopes taken to be in mrad/s: column_names.txt gives no unit",)


READER = OpportunityReader
