"""Where devices are worn: the words of all readers and of the demo, so that a place has one name.

Device("watch", placements.LEFT_WRIST, sensors)

Small letters, spaces between words; the side comes first, where the data set states it. "pocket" is
one of the trousers, "hip" is at the side, "waist" about the belt. What users say of their own
recordings is left as they wrote it.
"""

from __future__ import annotations

HEAD = "head"
CHEST = "chest"
BACK = "back"
WAIST = "waist"
HIP = "hip"
POCKET = "pocket"
UPPER_ARM = "upper arm"
LEFT_UPPER_ARM = "left upper arm"
RIGHT_UPPER_ARM = "right upper arm"
FOREARM = "forearm"
LEFT_FOREARM = "left forearm"
RIGHT_FOREARM = "right forearm"
WRIST = "wrist"
LEFT_WRIST = "left wrist"
RIGHT_WRIST = "right wrist"
LEFT_HAND = "left hand"
RIGHT_HAND = "right hand"
THIGH = "thigh"
LEFT_THIGH = "left thigh"
RIGHT_THIGH = "right thigh"
SHIN = "shin"
RIGHT_SHIN = "right shin"
ANKLE = "ankle"
LEFT_ANKLE = "left ankle"
RIGHT_ANKLE = "right ankle"
