"""How much of a long task is done, the rate, and the time left as soon as it can be estimated.

On a terminal it is one line that changes; elsewhere a line every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from primus_scale.monitor.progress import format_seconds

REPORT_S = 5.0  # seconds between lines
REFRESH_S = 0.2  # between changes of the line on a terminal
# The time left is estimated once so much is done after the first, whose time includes the start
# of the workers.
LEAST_S, LEAST_SHARE = 10.0, 0.1


def print_line(text: str) -> None:
    """Print a line; on a terminal above the one that changes."""
    tqdm.write(text)


class TaskProgress:
    """Reports ``done of total``, ``unit`` a second and the time left, at most every few seconds.

    report: prints a line. Where it is ``print_line`` and the output is a terminal, one line
    changes.
    """

    def __init__(self, what: str, total: int, unit: str, report: Callable[[str], None]) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._report = report
        self._done = self._kept = 0
        self._start = self._last = time.monotonic()
        self._first: tuple[float, int] | None = None  # when the first of this run was done
        on_terminal = report is print_line and sys.stdout.isatty()
        self._line = tqdm(total=0, bar_format="{desc}", file=sys.stdout) if on_terminal else None

    def add(self, count: int = 1, note: str = "", kept: bool = False) -> None:
        """Count ``count`` more; ``note`` is added to a line that is due.

        kept: they were done by an earlier run, and do not count in the rate.
        """
        self._done += count
        self._kept += count if kept else 0
        now = time.monotonic()
        if self._first is None and not kept:
            self._first = now, count
        ended = self._done >= self._total
        if now - self._last < (REFRESH_S if self._line is not None else REPORT_S) and not ended:
            return
        self._last = now
        text = self._text(now, ended) + (f"  {note}" if note else "")
        if self._line is None:
            self._report(text)
            return
        self._line.set_description_str(text)
        if ended:
            self._line.close()

    def _text(self, now: float, ended: bool) -> str:
        new, elapsed_s = self._done - self._kept, now - self._start
        left = ""
        if self._first is not None and not ended:
            since_s, done = now - self._first[0], new - self._first[1]
            if done and (since_s >= LEAST_S or done >= LEAST_SHARE * self._total):
                new, elapsed_s = done, since_s
                remaining_s = (self._total - self._done) * since_s / done
                left = f"  {format_seconds(remaining_s)} left"
        rate = new / max(elapsed_s, 1e-9)
        return (
            f"{self._what}  {self._done} of {self._total} {self._unit}  "
            f"{rate:{',.0f' if rate >= 10 else '.2g'}} {self._unit}/s{left}"
        )
