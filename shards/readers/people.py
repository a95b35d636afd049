"""Who was recorded: names under which data are split, so that nobody is on two sides of a split.

person = person_or_unknown("ego4d", details["person"], notes)
"""

from __future__ import annotations

UNKNOWN = "person unknown: taken to be one with all others unknown, so that no split parts them"


def person_or_unknown(dataset: str, person: str | int | None, notes: list[str]) -> str:
    """``<dataset>-<person>``; ``<dataset>-unknown`` and a note where nobody says who it was.

    The unknown are one person, so that no split has the same one on both sides.
    """
    if person is None or person == "":
        notes.append(UNKNOWN)
        return f"{dataset}-unknown"
    return f"{dataset}-{person}"
