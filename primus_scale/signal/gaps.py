"""Which spacing of samples is a gap, across which no window may lie.

A lost sample is filled in where that leaves no longer time than ``BRIDGED_S``: over the 0.1 s of
20 Hz, windows of the tests' motion are off by up to 0.17 of its deviation. A slow sensor's own
spacing, uneven as it may be, is no gap.
"""

from __future__ import annotations

GAP_S = 0.05  # up to here a spacing is no gap, unless a setting says otherwise
GAP_PERIODS, BRIDGED_S = 2.5, 0.09
UNEVEN_PERIODS = 1.5


def longest_spacing_s(usual_s: float, gap_s: float = GAP_S) -> float:
    """The longest spacing that is no gap, of samples whose usual spacing is ``usual_s``."""
    return max(gap_s, min(GAP_PERIODS * usual_s, BRIDGED_S), UNEVEN_PERIODS * usual_s)
