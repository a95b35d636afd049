"""Support sets: windows of the past whose nearest neighbours supervise the present ones."""

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
