"""A line through points of a sensor's clock: numbers of samples, and when they were taken.

line = fit_line(number, time_s, last=2082, period_s=0.005, starts=[(0, 0.0)],
                ends=[(2082, 10.51)])
line.at(100)  # s

The points are where a camera flushed its samples: off by a few of them, or by a whole second where
it was busy. Beginning and end of a film are exact, where they lie on the line of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import solveh_banded

FEWEST = 4  # points that a line is fitted to
NEAR_S = 0.06  # by which an end may miss the line of fewer points
SPREADS = 5.0  # of what the points tell, by which an end of the film may miss their line
OUTLIER = 4.0  # spreads: points beyond are of blocks that were delivered late
LATE_S = 0.03  # ... and at least by this much
LATE_FEW_S = 0.25  # ... where there are fewer points than ``SEEN``
EVEN = 0.45  # samples: up to this spread the points are exact but for rounding to whole samples
SEEN = 10  # points by which that shows
EXACT = 0.02  # samples: spread given to the film's beginning and end
PIECE = 120  # points to a straight piece of a clock that drifts
DRIFT = 10.0  # ratio of variances from which on it does


class Line(NamedTuple):
    """Times of the samples ``first`` to ``stop`` (excluded): straight between the knots."""

    first: int
    stop: int
    knots: np.ndarray
    knots_s: np.ndarray

    def at(self, number: float) -> float:
        """Time of a sample, s, also beyond the knots."""
        place = int(np.clip(np.searchsorted(self.knots, number), 1, len(self.knots) - 1))
        before, after = self.knots[place - 1 : place + 1]
        before_s, after_s = self.knots_s[place - 1 : place + 1]
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

    last: number after the samples that it tells of. period_s: seconds to a sample, roughly. starts,
    ends: numbers and times, one of which may be the film's beginning, or its end. Where starts are
    given, the first point is one of them, and none of the others.
    """
    first = int(number[0])
    knots = np.array([first, max(last, first + 1)], np.float64)
    if len(number) - bool(starts) < FEWEST:
        if starts:
            knots_s = _of_few(starts[0], period_s, knots, ends)
        else:
            knots_s = period_s * knots + np.median(time_s - period_s * number)
        return Line(first, last, knots, knots_s)
    if starts:
        number, time_s = number[1:], time_s[1:]
    inner = _inliers(number, time_s)
    number, time_s = number[inner], time_s[inner]
    knots_s = _fit(number, time_s, np.ones(len(number)), knots)
    missed_s = time_s - np.interp(number, knots, knots_s)
    spread_s = float(np.sqrt((missed_s**2).sum() / (len(number) - 2)))
    spread_s = max(spread_s, EVEN / 2 * period_s)
    believed = _believed(_Fit(number, knots, knots_s, spread_s), period_s, starts, ends)
    even = spread_s <= EVEN * period_s and len(number) >= SEEN
    weight = 1.0 if even else (spread_s / (EXACT * period_s)) ** 2
    weights = np.append(np.ones(len(number)), [weight] * len(believed))
    number = np.append(number, [place for place, _ in believed])
    time_s = np.append(time_s, [at_s for _, at_s in believed])
    knots_s = _fit(number, time_s, weights, knots)
    knots, knots_s = _bent(number, time_s, weights, knots, knots_s, EVEN / 2 * period_s)
    if even and believed and believed[0] in starts:  # borders are exact but for rounding
        knots_s += believed[0][1] - np.interp(believed[0][0], knots, knots_s)
    return Line(first, last, knots, knots_s)


def _of_few(
    start: tuple[float, float],
    period_s: float,
    knots: np.ndarray,
    ends: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Times of the knots from the start on, up to the end that is near the period."""
    line_s = start[1] + period_s * (knots - start[0])
    near = [(abs(line_s[1] - end_s), end_s) for _, end_s in ends]
    if near and min(near)[0] < NEAR_S:
        line_s[1] = min(near)[1]
    return np.asarray(line_s)


class _Fit(NamedTuple):
    """A line through points at these numbers, and how far they spread about it."""

    number: np.ndarray
    knots: np.ndarray
    knots_s: np.ndarray
    spread_s: float

    def sure_s(self, number: float) -> float:
        """How far the line may be wrong there, by the points."""
        apart = self.number - self.number.mean()
        lever = (number - self.number.mean()) ** 2 / (apart**2).sum()
        few = 1 + FEWEST / len(apart)  # a spread of few points is itself not sure
        return SPREADS * few * self.spread_s * float(np.sqrt(1 / len(apart) + lever))


def _believed(
    fit: _Fit,
    period_s: float,
    starts: Sequence[tuple[float, float]],
    ends: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
    """The best of the starts, and of the ends, where they lie on the line as far as it is known.

    Recording begins and ends with the film, so that these two are exact where blocks are not; but
    some cameras take in samples from before, or state a last block longer than it is.
    """
    believed = []
    for candidates in (starts, ends):
        missed = [
            (abs(time_s - float(np.interp(number, fit.knots, fit.knots_s))), (number, time_s))
            for number, time_s in candidates
        ]
        if missed:
            by_s, point = min(missed)
            if by_s <= fit.sure_s(point[0]) + period_s:
                believed.append(point)
    return believed


def _inliers(number: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Which points are not of late deliveries, by a line that a quarter of them cannot move."""
    apart = len(number) // 2
    slopes = (time_s[apart:] - time_s[:-apart]) / (number[apart:] - number[:-apart])
    period_s = float(np.median(slopes))
    off_s = time_s - period_s * number
    off_s = np.abs(off_s - np.median(off_s))
    least_s = LATE_S if len(number) >= SEEN else LATE_FEW_S
    return np.asarray(off_s <= max(OUTLIER * 1.4826 * float(np.median(off_s)), least_s))


def _bent(
    number: np.ndarray,
    time_s: np.ndarray,
    weights: np.ndarray,
    knots: np.ndarray,
    knots_s: np.ndarray,
    exact_s: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The line with a knot every ``PIECE`` points, where that is much nearer to them."""
    pieces = len(number) // PIECE
    if pieces < 2:
        return knots, knots_s
    inner = np.quantile(number, np.arange(1, pieces) / pieces)
    more = np.concatenate([knots[:1], inner, knots[-1:]])
    more_s = _fit(number, time_s, weights, more)
    straight = (weights * (time_s - np.interp(number, knots, knots_s)) ** 2).sum()
    bent = (weights * (time_s - np.interp(number, more, more_s)) ** 2).sum()
    free = len(number) - pieces - 1
    noise = max(bent / free, exact_s**2)
    drifts = (straight - bent) / (pieces - 1) > DRIFT * noise
    return (more, more_s) if drifts else (knots, knots_s)


def _fit(
    number: np.ndarray, time_s: np.ndarray, weights: np.ndarray, knots: np.ndarray
) -> np.ndarray:
    """Times at the knots of the weighted least-squares line, straight between them."""
    place = np.clip(np.searchsorted(knots, number, side="right") - 1, 0, len(knots) - 2)
    after = (number - knots[place]) / np.diff(knots)[place]
    middle_s = float(time_s.mean())  # times count from it, where float64 is finest
    size = len(knots)

    def summed(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, minlength=size)

    bands = np.zeros((2, size))
    bands[1] = summed(weights * (1 - after) ** 2, place) + summed(weights * after**2, place + 1)
    bands[0, 1:] = summed(weights * after * (1 - after), place)[:-1]
    apart_s = weights * (time_s - middle_s)
    right = summed(apart_s * (1 - after), place) + summed(apart_s * after, place + 1)
    return np.asarray(solveh_banded(bands, right)) + middle_s
