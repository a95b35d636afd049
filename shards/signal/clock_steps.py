"""Steps of a clock that are shorter than a gap, where the spacing of the samples shows them."""

from __future__ import annotations

import numpy as np

from shards.signal.sample_buffer import Column

ODD = 0.25  # of a period: what a whole number of lost samples does not explain
STEADY = 0.1  # of a period: times off their line on both sides of a step
SIDE_ROWS = 8  # looked at on each side
FEWEST_ROWS = 6
MOST_SHARE = 0.002  # of rows with odd spacings; more of them are the clock's jitter


def find_steps(rows: Column, period_s: float, limit_s: float) -> list[int]:
    """Rows (ordered by time) before which a steady clock was set by a part of a period, or more.

    period_s: mean spacing. limit_s: longer spacings are gaps already. A step by a whole number of
    periods looks like lost samples, and is taken for such.
    """
    candidates: list[int] = []
    row, last_s = 1, np.empty(0)
    for block in rows.blocks():
        time_s = np.concatenate([last_s, block["time_s"]])
        steps = np.diff(time_s) / period_s
        odd = (np.abs(steps - np.rint(steps)) > ODD) & (steps * period_s <= limit_s)
        candidates += (row + np.flatnonzero(odd)).tolist()
        row, last_s = row + len(steps), time_s[-1:]
        if len(candidates) > MOST_SHARE * len(rows) + 2:
            return []
    return [row for row in candidates if _is_step(rows, row, period_s)]


def _is_step(rows: Column, row: int, period_s: float) -> bool:
    levels = []
    for first, last in ((max(row - SIDE_ROWS, 0), row), (row, row + SIDE_ROWS)):
        time_s = rows.read(first, last)["time_s"]
        if len(time_s) < FEWEST_ROWS:
            return False
        level = time_s / period_s - np.arange(first, first + len(time_s))
        levels.append(float(np.median(level)))
        if np.abs(level - levels[-1]).max() > STEADY:
            return False
    shift = levels[1] - levels[0]
    return abs(shift - round(shift)) > ODD
