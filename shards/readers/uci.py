"""UCI HAR and UCI HAPT share their 30 volunteers and six activities: one name for each of both."""

from __future__ import annotations

ACTIVITIES = {
    1: "walking",
    2: "walking upstairs",
    3: "walking downstairs",
    4: "sitting",
    5: "standing",
    6: "lying",
}


def hapt_person(number: int) -> str:
    """One of the volunteers."""
    return f"hapt-{number:02d}"
