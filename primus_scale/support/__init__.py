"""Support sets: past windows, whose nearest neighbours supervise the current batch."""

from primus_scale.support.base import (
    Exclusion,
    Neighbours,
    SupportEntries,
    SupportSet,
    SupportSpec,
)
from primus_scale.support.ring import RingSupportSet

__all__ = [
    "Exclusion",
    "Neighbours",
    "RingSupportSet",
    "SupportEntries",
    "SupportSet",
    "SupportSpec",
]
