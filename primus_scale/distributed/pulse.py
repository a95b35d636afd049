"""How far this process has come: what the watchdog of each rank looks at.

    pulse.at("gather")          # before every call that waits for other ranks, in their order
    with pulse.long_work():     # may take LONG_WORK times as long without being stuck
        ...

All ranks make the same calls in the same order, so that of two ranks the one with the lower count
is the one that the other waits for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LONG_WORK = 6


@dataclass
class Pulse:
    """count: places passed so far. place: the last of them. step: of training, from 1."""

    count: int = 0
    place: str = "start"
    step: int = 0
    patience: int = 1  # times the ordinary, until this process counts as stuck
    _moved: float = field(default_factory=time.monotonic)

    @property
    def idle_s(self) -> float:
        """Seconds since it has moved."""
        return time.monotonic() - self._moved

    def at(self, place: str) -> None:
        """Note that this process has come to ``place``."""
        self.count += 1
        self.place = place
        self._moved = time.monotonic()

    @contextmanager
    def long_work(self) -> Iterator[None]:
        """A block that may take long by itself: files are written, hashed or converted."""
        before, self.patience = self.patience, LONG_WORK
        try:
            yield
        finally:
            self.patience = before
            self._moved = time.monotonic()


pulse = Pulse()
