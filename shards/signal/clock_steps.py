"""Steps of a clock that are shorter than a gap, where the spacing of the samples shows them."""

from __future__ import annotations

import numpy as np

from shards.signal.sample_buffer import Column, spacings

LEAST_STEP = 0.25  # of a period, after whole periods, which may be lost samples
MOST_JITTER = 0.1  # of a period: of the times on both sides of a step
SIDE_ROWS = 8  # looked at on each side
FEWEST_ROWS = 6
MOST_SHARE = 0.002  # of rows before which a step may lie; if there are more, the clock jitters


def find_steps(rows: Column, period_s: float, limit_s: float) -> list[int]:
    """Rows (ordered by time) before which a steady clock was set by a part of a period, or more.

    period_s: mean spacing. limit_s: longer spacings are gaps already. A step by a whole number of
    periods looks like lost samples, and is taken for such.
    """
    candidates: list[int] = []
    for row, spacing_s in spacings(rows):
        periods = spacing_s / period_s
        odd = (np.abs(periods - np.rint(periods)) > LEAST_STEP) & (periods * period_s <= limit_s)
        candidates += (row + np.flatnonzero(odd)).tolist()
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
        if np.abs(level - levels[-1]).max() > MOST_JITTER:
            return False
    shift = levels[1] - levels[0]
    return abs(shift - round(shift)) > LEAST_STEP
