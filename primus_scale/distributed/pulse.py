"""The pulse of this process: its last call that waits for other ranks, for the watchdog.

    pulse.at("gather")          # before every call that waits for other ranks
    with pulse.long_work():     # the process counts as stuck only after LONG_WORK times as long
        ...

All ranks make the same calls in the same order. So of two ranks the one with the lower count is the
one that the other waits for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LONG_WORK = 6


@dataclass
class Pulse:
    """How far this process is.

    count: number of calls of ``at``. place: the argument of the last one. step: of training, from
    1.
    """

    count: int = 0
    place: str = "start"
    step: int = 0
    limit_factor: int = 1  # times ``stuck_after_s``, until this process counts as stuck
    _moved: float = field(default_factory=time.monotonic)

    @property
    def idle_s(self) -> float:
        """Seconds since the last call of ``at``, or the end of the last long work."""
        return time.monotonic() - self._moved

    def at(self, place: str) -> None:
        """Note that this process has reached ``place`` in the program."""
        self.count += 1
        self.place = place
        self._moved = time.monotonic()

    @contextmanager
    def long_work(self) -> Iterator[None]:
        """A block that may take long: it writes, hashes or converts files."""
        before, self.limit_factor = self.limit_factor, LONG_WORK
        try:
            yield
        finally:
            self.limit_factor = before
            self._moved = time.monotonic()


pulse = Pulse()
