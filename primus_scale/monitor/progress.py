"""The line that shows the progress of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

LEAST_STEPS = 5  # after the first one, before the time left is shown


class ProgressLine:
    """One line with the progress of a run: rewritten on a terminal, repeated in a log file."""

    def __init__(self, total_steps: int, stream: TextIO):
        self._total_steps = total_steps
        self._stream = stream
        self._started: tuple[int, float] | None = None
        self._open = False

    def show(self, step: int, figures: Mapping[str, float]) -> None:
        """Show ``step`` with its loss terms, windows/s and the time left."""
        now = time.monotonic()
        if self._started is None:
            self._started = step, now  # the first step includes warm-up, so it is not counted
        first_step, first_time = self._started
        done = step - first_step
        left = None
        if done >= LEAST_STEPS and step < self._total_steps:
            left = (now - first_time) / done * (self._total_steps - step)
        losses = group_of(figures, "loss")
        terms = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        speed = figures.get("speed/windows_per_s", 0.0)
        line = (
            f"step {step}/{self._total_steps} | {terms} | {speed:,.0f} windows/s"
            f"{'' if left is None else f' | {format_seconds(left)} left'}"
        )
        if self._stream.isatty():
            self._write(f"\r\x1b[K{line}")
            self._open = True
        else:
            self._write(line + "\n")

    def say(self, text: str) -> None:
        """Write ``text`` as a separate line."""
        self.end()
        self._write(text + "\n")

    def end(self) -> None:
        """Keep the line on the terminal, and start a new one."""
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the reader of the stream may be gone; the run must still be saved
            self._stream.write(text)
            self._stream.flush()


def format_seconds(seconds: float) -> str:
    """``1h 02m``, ``3m 20s`` or ``12s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def group_of(record: Mapping[str, float], group: str) -> dict[str, float]:
    """The figures named ``group/...`` of a record, by the rest of their names."""
    start = f"{group}/"
    return {name.removeprefix(start): x for name, x in record.items() if name.startswith(start)}
