"""The draft of ``windows.yaml``, for recordings of an accelerometer alone."""

from __future__ import annotations

from collections.abc import Iterable

_TEXT = """\
# Drafted by `primus-scale shards init folder`: windows of the accelerometer alone.
channels: {acc_x: m/s2, acc_y: m/s2, acc_z: m/s2}  # guess: no gyroscope is described
"""


def draft_windows(descriptions: Iterable[str]) -> str | None:
    """The text of ``windows.yaml``; None where a drafted description has a gyroscope."""
    return None if any("gyr_x:" in text for text in descriptions) else _TEXT
