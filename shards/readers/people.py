"""Names of the people who were recorded; data are split by them.

person = person_or_unknown("ego4d", details["person"], notes)
"""

from __future__ import annotations

UNKNOWN = (
    "person unknown: counted as one person with all other unknown people, so no split divides them"
)


def unknown_person(dataset: str) -> str:
    """The name that all unknown people of a data set share."""
    return f"{dataset}-unknown"


def person_or_unknown(dataset: str, person: str | int | None, notes: list[str]) -> str:
    """``<dataset>-<person>``; ``<dataset>-unknown`` and a note where the person is unknown.

    All unknown people count as one, so that no split has the same person on both sides.
    """
    if person is None or person == "":
        notes.append(UNKNOWN)
        return unknown_person(dataset)
    return f"{dataset}-{person}"
