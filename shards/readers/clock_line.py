"""A line through points of a sensor's clock: numbers of samples, and their times.

line = fit_line(number, time_s, last=2082, period_s=0.005, starts=[(0, 0.0)],
                ends=[(2082, 10.51)])
line.at(100)  # s

The times of points are those at which a camera wrote its samples: a few samples late, or a second
if it was busy. Beginning and end of the video are exact, if they are on the line of the other
points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import solveh_banded

FEWEST_POINTS = 4  # to fit a line
END_TOLERANCE_S = 0.06  # distance of the end from the line, if there are fewer points
MOST_SPREADS = 5.0  # distance of an end from the line, in spreads of the points
OUTLIER_SPREADS = 4.0  # a point further from the line is of a block that was written late
LATE_S = 0.03  # least distance of such a point
LATE_FEW_S = 0.25  # the same, with fewer points than ``FEWEST_FOR_SPREAD``
EVEN_SPREAD = 0.45  # samples; up to it points are exact, except for rounding to whole samples
FEWEST_FOR_SPREAD = 10  # points, to estimate their spread
EXACT_SPREAD = 0.02  # samples; assumed for the video's beginning and end
PIECE_POINTS = 120  # points between knots of a clock that drifts
DRIFT_RATIO = 10.0  # of variances; above it the clock drifts


class Line(NamedTuple):
    """Times of the samples ``first`` to ``stop`` (excluded): linear between the knots."""

    first: int
    stop: int
    knots: np.ndarray
    knots_s: np.ndarray

    def at(self, number: float) -> float:
        """Time of a sample, s, also beyond the knots."""
        right = int(np.clip(np.searchsorted(self.knots, number), 1, len(self.knots) - 1))
        before, after = self.knots[right - 1 : right + 1]
        before_s, after_s = self.knots_s[right - 1 : right + 1]
        return float(before_s + (number - before) * (after_s - before_s) / (after - before))


def fit_line(
    number: np.ndarray,
    time_s: np.ndarray,
    *,
    last: int,
    period_s: float,
    starts: Sequence[tuple[float, float]] = (),
    ends: Sequence[tuple[float, float]] = (),
) -> Line:
    """The line through points ``number``, ``time_s`` ``(n,)``, float64 and ascending.

    last: number after its last sample. period_s: approximate seconds between samples. starts, ends:
    numbers and times, one of which may be the video's beginning, or its end. If starts are given,
    the first point is one of them, and is not used as a point.
    """
    first = int(number[0])
    knots = np.array([first, max(last, first + 1)], np.float64)
    if len(number) - bool(starts) < FEWEST_POINTS:
        if starts:
            knots_s = _line_of_few(starts[0], period_s, knots, ends)
        else:
            knots_s = period_s * knots + np.median(time_s - period_s * number)
        return Line(first, last, knots, knots_s)
    if starts:
        number, time_s = number[1:], time_s[1:]
    inner = _inliers(number, time_s)
    number, time_s = number[inner], time_s[inner]
    knots_s = _fit(number, time_s, np.ones(len(number)), knots)
    residual_s = time_s - np.interp(number, knots, knots_s)
    spread_s = float(np.sqrt((residual_s**2).sum() / (len(number) - 2)))
    spread_s = max(spread_s, EVEN_SPREAD / 2 * period_s)
    confirmed = _confirmed_ends(_Fit(number, knots, knots_s, spread_s), period_s, starts, ends)
    even = spread_s <= EVEN_SPREAD * period_s and len(number) >= FEWEST_FOR_SPREAD
    weight = 1.0 if even else (spread_s / (EXACT_SPREAD * period_s)) ** 2
    weights = np.append(np.ones(len(number)), [weight] * len(confirmed))
    number = np.append(number, [at for at, _ in confirmed])
    time_s = np.append(time_s, [at_s for _, at_s in confirmed])
    knots_s = _fit(number, time_s, weights, knots)
    knots, knots_s = _with_knots(
        number, time_s, weights, knots, knots_s, EVEN_SPREAD / 2 * period_s
    )
    if even and confirmed and confirmed[0] in starts:  # borders are exact but for rounding
        knots_s += confirmed[0][1] - np.interp(confirmed[0][0], knots, knots_s)
    return Line(first, last, knots, knots_s)


def _line_of_few(
    start: tuple[float, float],
    period_s: float,
    knots: np.ndarray,
    ends: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Times of the knots by start and period; the last is the end that fits, if one does."""
    line_s = start[1] + period_s * (knots - start[0])
    near = [(abs(line_s[1] - end_s), end_s) for _, end_s in ends]
    if near and min(near)[0] < END_TOLERANCE_S:
        line_s[1] = min(near)[1]
    return np.asarray(line_s)


class _Fit(NamedTuple):
    """A line through points at these numbers, and their spread about it."""

    number: np.ndarray
    knots: np.ndarray
    knots_s: np.ndarray
    spread_s: float

    def error_s(self, number: float) -> float:
        """Possible error of the line at a sample, s, from the spread of the points."""
        apart = self.number - self.number.mean()
        lever = (number - self.number.mean()) ** 2 / (apart**2).sum()
        few = 1 + FEWEST_POINTS / len(apart)  # the spread of few points is itself uncertain
        return MOST_SPREADS * few * self.spread_s * float(np.sqrt(1 / len(apart) + lever))


def _confirmed_ends(
    fit: _Fit,
    period_s: float,
    starts: Sequence[tuple[float, float]],
    ends: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
    """The best of the starts, and of the ends, if they are on the line within its error.

    Recording begins and ends with the video, so these two are more exact than blocks. But some
    cameras keep samples from before, or state too long a last block.
    """
    confirmed = []
    for candidates in (starts, ends):
        distances = [
            (abs(time_s - float(np.interp(number, fit.knots, fit.knots_s))), (number, time_s))
            for number, time_s in candidates
        ]
        if distances:
            by_s, point = min(distances)
            if by_s <= fit.error_s(point[0]) + period_s:
                confirmed.append(point)
    return confirmed


def _inliers(number: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Which points are not late, by a line that is right with up to a quarter of late points."""
    apart = len(number) // 2
    slopes = (time_s[apart:] - time_s[:-apart]) / (number[apart:] - number[:-apart])
    period_s = float(np.median(slopes))
    off_s = time_s - period_s * number
    off_s = np.abs(off_s - np.median(off_s))
    least_s = LATE_S if len(number) >= FEWEST_FOR_SPREAD else LATE_FEW_S
    return np.asarray(off_s <= max(OUTLIER_SPREADS * 1.4826 * float(np.median(off_s)), least_s))


def _with_knots(
    number: np.ndarray,
    time_s: np.ndarray,
    weights: np.ndarray,
    knots: np.ndarray,
    knots_s: np.ndarray,
    exact_s: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The line with a knot every ``PIECE_POINTS`` points, if that fits much better."""
    pieces = len(number) // PIECE_POINTS
    if pieces < 2:
        return knots, knots_s
    inner = np.quantile(number, np.arange(1, pieces) / pieces)
    more = np.concatenate([knots[:1], inner, knots[-1:]])
    more_s = _fit(number, time_s, weights, more)
    straight_error = (weights * (time_s - np.interp(number, knots, knots_s)) ** 2).sum()
    bent_error = (weights * (time_s - np.interp(number, more, more_s)) ** 2).sum()
    free = len(number) - pieces - 1
    noise = max(bent_error / free, exact_s**2)
    drifts = (straight_error - bent_error) / (pieces - 1) > DRIFT_RATIO * noise
    return (more, more_s) if drifts else (knots, knots_s)


def _fit(
    number: np.ndarray, time_s: np.ndarray, weights: np.ndarray, knots: np.ndarray
) -> np.ndarray:
    """Times at the knots of the weighted least-squares line, linear between them."""
    left = np.clip(np.searchsorted(knots, number, side="right") - 1, 0, len(knots) - 2)
    after = (number - knots[left]) / np.diff(knots)[left]
    middle_s = float(time_s.mean())  # subtracted from times, for float64 precision
    size = len(knots)

    def summed(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, minlength=size)

    bands = np.zeros((2, size))
    bands[1] = summed(weights * (1 - after) ** 2, left) + summed(weights * after**2, left + 1)
    bands[0, 1:] = summed(weights * after * (1 - after), left)[:-1]
    apart_s = weights * (time_s - middle_s)
    right = summed(apart_s * (1 - after), left) + summed(apart_s * after, left + 1)
    return np.asarray(solveh_banded(bands, right)) + middle_s
