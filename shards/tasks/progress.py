"""A line every few seconds: how much is done, the rate, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from primus_scale.monitor.progress import format_seconds

REPORT_S = 5.0  # seconds between lines


class TaskProgress:
    """Reports ``done of total``, ``unit`` a second and the time left, at most every few seconds."""

    def __init__(self, what: str, total: int, unit: str, report: Callable[[str], None]) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._report = report
        self._done = self._kept = 0
        self._start = self._last = time.monotonic()

    def add(self, count: int = 1, note: str = "", kept: bool = False) -> None:
        """Count ``count`` more; ``note`` is added to a line that is due.

        kept: they were done by an earlier run, and do not count in the rate.
        """
        self._done += count
        self._kept += count if kept else 0
        now = time.monotonic()
        if now - self._last < REPORT_S and self._done < self._total:
            return
        self._last = now
        new, elapsed_s = self._done - self._kept, now - self._start
        rate = new / max(elapsed_s, 1e-9)
        left = format_seconds((self._total - self._done) * elapsed_s / max(new, 1))
        self._report(
            f"{self._what}  {self._done} of {self._total} {self._unit}  "
            f"{rate:{',.0f' if rate >= 10 else '.2g'}} {self._unit}/s  {left} left"
            f"{f'  {note}' if note else ''}"
        )
