"""The clock behind times that were cut, or rounded, to steps of up to seconds.

step_s = coarse_step(packets, 0.0025)
fit = fit_coarse(packets, step_s, limits, tolerance_s=0.0025, where="device watch")

A time that was cut tells that its first sample came at or after it, and the sample before it
earlier. All these bounds together leave an even clock little room, none where samples were lost.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from shards.settings import SensorLimits
from shards.signal.packets import FEWEST, Packets, period_of, which_sample

LONGEST_S = 1.0  # of steps
FINEST = 1.5  # tolerances; finer steps do no harm
ON_STEP, RARE = 0.05, 0.01  # of a step: how near to whole ones times lie; how many do not
WRITTEN_S = 0.0012  # by which spacings differ that are written to the ms
FIRST = 4  # times by which a step is tried, then by twice as many, and so on
EXPLAINED = 1.5  # steps; samples that share a time over longer were sent in packets
UNEVEN, FEWEST_ODD = 0.1, 10  # spacings off by that much of the usual one do harm; so many show why
GAP = 3.0  # usual spacings
EVEN = 0.1  # widths: times that step with the samples
UNBOUND = 0.4  # periods by which the bounds of a stretch may be wider than those of the best
SEARCHES = 60  # of the narrowest period
ROOM = 1.02  # widths of the bounds that times may scatter over
SLACK = 0.25  # widths by which the bounds of two stretches may miss each other
BESIDE_LOSS = 4  # times on both sides of lost samples that are not trusted


def coarse_step(packets: Packets, tolerance_s: float) -> float | None:
    """The longest step that the times go by, where it is coarse; they are put on whole ones.

    tolerance_s: by which times may be off all together. None as well where the samples of a time
    reach over longer than a step: they were sent so.
    """
    period_s = packets.period_s
    if not period_s > 0:
        return None
    grid = _grid(packets.time_s, FINEST * tolerance_s)
    if grid is None:
        return None
    step_s, on_step_s, from_zero = grid
    if packets.usual_count > 1:
        if packets.usual_count * period_s >= EXPLAINED * step_s or not from_zero:
            return None
    else:
        several = int((packets.counts > 1).sum())
        if several + odd_spacings(packets.time_s, tolerance_s) < FEWEST_ODD:
            return None
    packets.time_s = on_step_s
    return step_s


def odd_spacings(time_s: np.ndarray, tolerance_s: float) -> int:
    """How many spacings differ from the usual one, and are no gaps."""
    spacing_s = np.diff(time_s)
    if not len(spacing_s):
        return 0
    usual_s = float(np.median(spacing_s))
    off_s = np.abs(spacing_s - usual_s)
    return int(((off_s > min(UNEVEN * usual_s, tolerance_s)) & (off_s < GAP * usual_s)).sum())


def _grid(time_s: np.ndarray, finest_s: float) -> tuple[float, np.ndarray, bool] | None:
    """The longest step that the times ``(n,)`` go by, they, put on it, and whether from zero on."""
    spacing_s = np.diff(time_s)
    spacing_s = spacing_s[spacing_s > finest_s - WRITTEN_S]
    if not len(spacing_s):
        return None
    shortest_s = float(np.quantile(spacing_s, RARE, method="lower"))
    near = (spacing_s >= shortest_s) & (spacing_s < shortest_s + WRITTEN_S)
    shortest_s = float(spacing_s[near].mean())
    fewest = math.ceil(shortest_s / LONGEST_S - ON_STEP)
    for parts in range(max(fewest, 1), int(shortest_s / finest_s + ON_STEP) + 1):
        step_s = _fitted(time_s - time_s[0], shortest_s / parts)
        if step_s is None:
            continue
        for whole_s in (round(step_s, 3), round(step_s, 6), 1 / max(round(1 / step_s), 1)):
            place = np.rint(time_s / max(whole_s, WRITTEN_S))
            if _near(time_s - place * whole_s, whole_s):
                return whole_s, place * whole_s, True
        place = np.rint((time_s - time_s[0]) / step_s)
        return step_s, step_s * place + (time_s - step_s * place).mean(), False
    return None


def _fitted(time_s: np.ndarray, step_s: float) -> float | None:
    """The step of about this length that the times go by; None where they do not.

    Clocks whose steps are no whole number of ms (1 / 64 s, 1 / 30 s) are often written to the ms.
    """
    count = FIRST
    while True:
        part = time_s[:count]
        place = np.rint(part / step_s)
        if place[-1] > place[0]:
            step_s, shift_s = (float(one) for one in np.polyfit(place, part, 1))
            if not _near(part - shift_s - step_s * place, step_s):
                return None
        if count >= len(time_s):
            return step_s
        count *= 2


def _near(off_s: np.ndarray, step_s: float) -> bool:
    """Whether times lie so near to whole steps as the ms that they are written to allow."""
    return bool((np.abs(off_s) > min(ON_STEP * step_s, WRITTEN_S / 2)).mean() <= RARE)


class CoarseFit(NamedTuple):
    """starts: time of the first sample of each packet ``(n,)``, NaN where it is unknown.

    note: what was done. refusal: a message where nothing tells whether times were cut or rounded,
    and the difference matters.
    """

    starts: np.ndarray
    note: str
    refusal: str


def fit_coarse(
    packets: Packets, step_s: float, limits: SensorLimits, *, tolerance_s: float, where: str
) -> CoarseFit:
    """The even clock behind the times. Fills in ``packets.period_s`` and ``packets.resumed``."""
    place = np.cumsum(packets.counts).astype(np.float64) - packets.counts
    found = [_narrowest(packets, place, period_s, step_s) for period_s in packets.periods()]
    period_s, segments = max(found, key=lambda one: sum(len(segment) for segment in one[1]))
    if not segments:
        return CoarseFit(np.full(len(place), np.nan), "", "")
    width_s = min(period_s, step_s)
    missed = packets.time_s - period_s * place
    level_s, told = _level(packets, missed, segments, step_s, width_s, limits, tolerance_s)
    refusal = "" if told else which_sample(packets, where, packets.usual_count * period_s)
    starts = np.full(len(place), np.nan)
    main = max(segments, key=len)
    base = _middle(missed[main])
    first_s = level_s
    level_s += period_s * round((base - _middle(missed[segments[0]])) / period_s)
    packets.resumed = np.zeros(len(place), bool)
    for segment in segments:
        lost = round((_middle(missed[segment]) - base) / period_s)
        off = missed[segment] - lost * period_s - base
        if np.abs(off).max() > (ROOM / 2 + SLACK) * width_s:
            continue  # on no clock of whole samples
        starts[segment] = level_s + period_s * (place[segment] + lost)
        packets.resumed[segment[0]] = True
    if segments[0][0] == 1 and not packets.fresh[1]:  # the first time's samples are but a part
        starts[0], packets.resumed[1] = first_s, False
    packets.period_s = period_s
    note = f"on one clock of {1 / period_s:.5g} Hz, {told} to steps of {step_s:.4g} s"
    return CoarseFit(starts, note, refusal)


def _level(
    packets: Packets,
    missed: np.ndarray,
    segments: list[np.ndarray],
    step_s: float,
    width_s: float,
    limits: SensorLimits,
    tolerance_s: float,
) -> tuple[float, str]:
    """Time of sample 0 on the even clock, and what was done to the times, empty where unknown."""
    low_s = float(missed[segments[0]].max())
    high_s = float(missed[segments[0]].min()) + width_s
    low_s, high_s = min(low_s, high_s), max(low_s, high_s)
    moved = {"first": (0.0, "cut"), "middle": (step_s / 2, "rounded"), "last": (step_s, "raised")}
    slack_s = 0.1 * width_s
    begin_s = float(packets.time_s[0])
    if limits.shared_times is None:
        # A clock that begins with the recording begins with its first sample.
        for shift_s, told in list(moved.values())[:2] if begin_s == 0 else ():
            if low_s - shift_s - slack_s <= 0 <= high_s - shift_s + slack_s:
                return 0.0, f"their times having been {told}"
        told = "their times having been cut or rounded" if step_s / 4 <= tolerance_s else ""
        return (low_s + high_s) / 2 - step_s / 4, told
    shift_s, told = moved[limits.shared_times]
    narrow = high_s - low_s < 0.9 * width_s
    return ((low_s + high_s) / 2 if narrow else low_s) - shift_s, f"their times having been {told}"


def _middle(missed: np.ndarray) -> float:
    return float(missed.max() + missed.min()) / 2


def _narrowest(
    packets: Packets, place: np.ndarray, period_s: float, step_s: float
) -> tuple[float, list[np.ndarray]]:
    """The period that leaves the bounds most room, and the runs of times that one clock fits."""
    for room in (1.5, 1.1):  # widths; the second, since a first part of a time is none to go by
        missed = packets.time_s - period_s * place
        width_s = min(period_s, step_s)
        cuts = (np.abs(np.diff(missed)) > room * width_s) | packets.fresh[1:]
        edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(missed)]
        runs = [np.arange(*run) for run in itertools.pairwise(edges)]
        period_s = period_of(packets.time_s, place, runs) or period_s

    def spread(period_s: float) -> float:
        missed = packets.time_s - period_s * place
        return sum(float(np.ptp(missed[run])) for run in runs)

    longest = max(float(place[run[-1]] - place[run[0]]) for run in runs)
    reach = 2 * width_s / max(longest, 1.0)
    low, high = period_s - reach, period_s + reach
    for _ in range(SEARCHES):  # the spread is convex
        third = (high - low) / 3
        low, high = (
            (low, high - third)
            if spread(low + third) <= spread(high - third)
            else (
                low + third,
                high,
            )
        )
    if spread((low + high) / 2) < spread(period_s):
        period_s = (low + high) / 2
    return period_s, _segments(packets, place, period_s, min(period_s, step_s))


def _segments(
    packets: Packets, place: np.ndarray, period_s: float, width_s: float
) -> list[np.ndarray]:
    """Runs of times whose bounds one clock fits; what lies next to lost samples is left out."""
    missed = packets.time_s - period_s * place
    cuts = (np.abs(np.diff(missed)) > ROOM * width_s) | packets.fresh[1:]
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(missed)]
    segments = []
    for first, last in itertools.pairwise(edges):
        for start, stop in _fitting(missed[first:last], ROOM * width_s):
            begin = first + start + (BESIDE_LOSS if start else 0)
            end = first + stop - (BESIDE_LOSS if first + stop < last else 0)
            if last < len(missed) and first + stop == last:
                end -= 1  # samples are missing in it, who knows where
            if end - begin >= FEWEST:
                segments.append(np.arange(begin, end))
    spreads = [float(np.ptp(missed[segment])) for segment in segments]
    if max(spreads, default=0.0) < EVEN * width_s:
        return segments
    # Where the samples after a loss lie is known as well as the bounds of their times are narrow.
    narrow_s = max(spreads) - UNBOUND * period_s
    return [segment for segment, wide in zip(segments, spreads, strict=True) if wide > narrow_s]


def _fitting(missed: np.ndarray, room_s: float) -> list[tuple[int, int]]:
    """Longest runs, one after the other, whose range stays within the room."""
    if np.ptp(missed) <= room_s:
        return [(0, len(missed))]
    runs, start = [], 0
    low = high = float(missed[0])
    for row, value in enumerate(missed.tolist()):
        low, high = min(low, value), max(high, value)
        if high - low > room_s:
            runs.append((start, row))
            start, low, high = row, value, value
    return [*runs, (start, len(missed))]
