"""One fault of ``tests.mutations``."""

from typing import NamedTuple


class Fault(NamedTuple):
    """In ``file``, the only ``old`` becomes ``new``; ``tests`` are to notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: str
