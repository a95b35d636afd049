"""The clock behind times that were cut, or rounded, to steps of up to seconds.

step_s = coarse_step(packets, 0.0025)
fit = fit_coarse(packets, step_s, limits, tolerance_s=0.0025, where="device watch")

A time that was cut bounds the true times: its first sample came at or after it, and the sample
before came earlier. All these bounds together allow few even clocks, and none where samples were
lost.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from shards.settings import SensorLimits
from shards.signal.packets import FEWEST_PACKETS, Packets, ambiguous_times, period_of

LONGEST_STEP_S = 1.0
FINEST_STEP = 1.5  # tolerances; finer steps do no harm
STEP_TOLERANCE = 0.05  # of a step, from whole ones
OFF_STEP_SHARE = 0.01  # of times further off
WRITTEN_ERROR_S = 0.0012  # of spacings that are written to the ms
FIRST_TIMES = 4  # a step is tried on so many, then on twice as many, and so on
MOST_PACKET_STEPS = 1.5  # samples that share a time over more steps were sent in packets
ODD_SPACING, FEWEST_ODD = 0.1, 10  # of the usual spacing; number of such spacings
GAP_PERIODS = 3.0  # usual spacings
EVEN_SPREAD = 0.1  # widths: the steps are those of the samples
BOUNDS_MARGIN = 0.4  # periods; segments of wider bounds than the best are left out
SEARCH_STEPS = 60  # of the search for the narrowest period
BOUNDS_WIDTHS = 1.02  # that times of one segment may scatter over
LEVEL_TOLERANCE = 0.25  # widths, between the bounds of two segments
TIMES_NEAR_LOSS = 4  # left out on both sides of lost samples


def coarse_step(packets: Packets, tolerance_s: float) -> float | None:
    """The longest step of the times, where it is coarse; times are put on whole steps.

    tolerance_s: error allowed to all times together. None as well where the samples of one time
    last longer than a step: they were sent in packets.
    """
    period_s = packets.period_s
    if not period_s > 0:
        return None
    grid = _grid(packets.time_s, FINEST_STEP * tolerance_s)
    if grid is None:
        return None
    step_s, on_step_s, from_zero = grid
    if packets.usual_count > 1:
        if packets.usual_count * period_s >= MOST_PACKET_STEPS * step_s or not from_zero:
            return None
    else:
        several = int((packets.counts > 1).sum())
        if several + odd_spacings(packets.time_s, tolerance_s) < FEWEST_ODD:
            return None
    packets.time_s = on_step_s
    return step_s


def odd_spacings(time_s: np.ndarray, tolerance_s: float) -> int:
    """Number of spacings that differ from the usual one and are no gaps."""
    spacing_s = np.diff(time_s)
    if not len(spacing_s):
        return 0
    usual_s = float(np.median(spacing_s))
    off_s = np.abs(spacing_s - usual_s)
    return int(
        ((off_s > min(ODD_SPACING * usual_s, tolerance_s)) & (off_s < GAP_PERIODS * usual_s)).sum()
    )


def _grid(time_s: np.ndarray, finest_s: float) -> tuple[float, np.ndarray, bool] | None:
    """The longest step; the times ``(n,)`` on whole steps; whether steps count from 0."""
    spacing_s = np.diff(time_s)
    spacing_s = spacing_s[spacing_s > finest_s - WRITTEN_ERROR_S]
    if not len(spacing_s):
        return None
    shortest_s = float(np.quantile(spacing_s, OFF_STEP_SHARE, method="lower"))
    near = (spacing_s >= shortest_s) & (spacing_s < shortest_s + WRITTEN_ERROR_S)
    shortest_s = float(spacing_s[near].mean())
    fewest = math.ceil(shortest_s / LONGEST_STEP_S - STEP_TOLERANCE)
    for parts in range(max(fewest, 1), int(shortest_s / finest_s + STEP_TOLERANCE) + 1):
        step_s = _fitted(time_s - time_s[0], shortest_s / parts)
        if step_s is None:
            continue
        for whole_s in (round(step_s, 3), round(step_s, 6), 1 / max(round(1 / step_s), 1)):
            place = np.rint(time_s / max(whole_s, WRITTEN_ERROR_S))
            if _on_steps(time_s - place * whole_s, whole_s):
                return whole_s, place * whole_s, True
        place = np.rint((time_s - time_s[0]) / step_s)
        return step_s, step_s * place + (time_s - step_s * place).mean(), False
    return None


def _fitted(time_s: np.ndarray, step_s: float) -> float | None:
    """The step of about this length; None where the times are not on such steps.

    Clocks whose steps are no whole number of ms (1 / 64 s, 1 / 30 s) are often written to the ms.
    """
    count = FIRST_TIMES
    while True:
        part = time_s[:count]
        place = np.rint(part / step_s)
        if place[-1] > place[0]:
            step_s, shift_s = (float(one) for one in np.polyfit(place, part, 1))
            if not _on_steps(part - shift_s - step_s * place, step_s):
                return None
        if count >= len(time_s):
            return step_s
        count *= 2


def _on_steps(off_s: np.ndarray, step_s: float) -> bool:
    """Whether times lie on whole steps, as well as times written to the ms can."""
    return bool(
        (np.abs(off_s) > min(STEP_TOLERANCE * step_s, WRITTEN_ERROR_S / 2)).mean() <= OFF_STEP_SHARE
    )


class CoarseFit(NamedTuple):
    """starts: time of the first sample of each packet ``(n,)``, NaN where it is unknown.

    note: what was done. refusal: the error where it is unknown whether times were cut or rounded,
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
    residual = packets.time_s - period_s * place
    level_s, reading = _level(packets, residual, segments, step_s, width_s, limits, tolerance_s)
    refusal = "" if reading else ambiguous_times(packets, where, packets.usual_count * period_s)
    starts = np.full(len(place), np.nan)
    main = max(segments, key=len)
    base = _middle(residual[main])
    first_s = level_s
    level_s += period_s * round((base - _middle(residual[segments[0]])) / period_s)
    packets.resumed = np.zeros(len(place), bool)
    for segment in segments:
        lost = round((_middle(residual[segment]) - base) / period_s)
        off = residual[segment] - lost * period_s - base
        if np.abs(off).max() > (BOUNDS_WIDTHS / 2 + LEVEL_TOLERANCE) * width_s:
            continue  # not on the clock by any whole number of samples
        starts[segment] = level_s + period_s * (place[segment] + lost)
        packets.resumed[segment[0]] = True
    if segments[0][0] == 1 and not packets.clock_set[1]:  # the first time is that of fewer samples
        starts[0], packets.resumed[1] = first_s, False
    packets.period_s = period_s
    note = f"on one clock of {1 / period_s:.5g} Hz, {reading} to steps of {step_s:.4g} s"
    return CoarseFit(starts, note, refusal)


def _level(
    packets: Packets,
    residual: np.ndarray,
    segments: list[np.ndarray],
    step_s: float,
    width_s: float,
    limits: SensorLimits,
    tolerance_s: float,
) -> tuple[float, str]:
    """Time of sample 0 on the even clock, and how the times were made, empty where unknown."""
    low_s = float(residual[segments[0]].max())
    high_s = float(residual[segments[0]].min()) + width_s
    low_s, high_s = min(low_s, high_s), max(low_s, high_s)
    readings = {
        "first": (0.0, "cut"),
        "middle": (step_s / 2, "rounded"),
        "last": (step_s, "raised"),
    }
    slack_s = 0.1 * width_s
    begin_s = float(packets.time_s[0])
    if limits.shared_times is None:
        # A clock that begins with the recording begins with its first sample.
        for shift_s, reading in list(readings.values())[:2] if begin_s == 0 else ():
            if low_s - shift_s - slack_s <= 0 <= high_s - shift_s + slack_s:
                return 0.0, f"their times having been {reading}"
        reading = "their times having been cut or rounded" if step_s / 4 <= tolerance_s else ""
        return (low_s + high_s) / 2 - step_s / 4, reading
    shift_s, reading = readings[limits.shared_times]
    narrow = high_s - low_s < 0.9 * width_s
    return (
        (low_s + high_s) / 2 if narrow else low_s
    ) - shift_s, f"their times having been {reading}"


def _middle(residual: np.ndarray) -> float:
    return float(residual.max() + residual.min()) / 2


def _narrowest(
    packets: Packets, place: np.ndarray, period_s: float, step_s: float
) -> tuple[float, list[np.ndarray]]:
    """The period with the narrowest bounds, and the segments of times that one clock fits."""
    for room in (1.5, 1.1):  # widths; the first time may be that of fewer samples
        residual = packets.time_s - period_s * place
        width_s = min(period_s, step_s)
        cuts = (np.abs(np.diff(residual)) > room * width_s) | packets.clock_set[1:]
        edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(residual)]
        runs = [np.arange(*run) for run in itertools.pairwise(edges)]
        period_s = period_of(packets.time_s, place, runs) or period_s

    def spread(period_s: float) -> float:
        residual = packets.time_s - period_s * place
        return sum(float(np.ptp(residual[run])) for run in runs)

    longest = max(float(place[run[-1]] - place[run[0]]) for run in runs)
    reach = 2 * width_s / max(longest, 1.0)
    low, high = period_s - reach, period_s + reach
    for _ in range(SEARCH_STEPS):  # the spread is convex
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
    """Segments of times whose bounds one clock fits; times next to lost samples are left out."""
    residual = packets.time_s - period_s * place
    cuts = (np.abs(np.diff(residual)) > BOUNDS_WIDTHS * width_s) | packets.clock_set[1:]
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(residual)]
    segments = []
    for first, last in itertools.pairwise(edges):
        for start, stop in _fitting_runs(residual[first:last], BOUNDS_WIDTHS * width_s):
            begin = first + start + (TIMES_NEAR_LOSS if start else 0)
            end = first + stop - (TIMES_NEAR_LOSS if first + stop < last else 0)
            if last < len(residual) and first + stop == last:
                end -= 1  # samples are missing in it, at an unknown place
            if end - begin >= FEWEST_PACKETS:
                segments.append(np.arange(begin, end))
    spreads = [float(np.ptp(residual[segment])) for segment in segments]
    if max(spreads, default=0.0) < EVEN_SPREAD * width_s:
        return segments
    # The wider the bounds of a segment, the less is known of where its samples lie.
    narrow_s = max(spreads) - BOUNDS_MARGIN * period_s
    return [segment for segment, wide in zip(segments, spreads, strict=True) if wide > narrow_s]


def _fitting_runs(residual: np.ndarray, room_s: float) -> list[tuple[int, int]]:
    """Runs ``(start, stop)``, each as long as its range stays within ``room_s``."""
    if np.ptp(residual) <= room_s:
        return [(0, len(residual))]
    runs, start = [], 0
    low = high = float(residual[0])
    for row, value in enumerate(residual.tolist()):
        low, high = min(low, value), max(high, value)
        if high - low > room_s:
            runs.append((start, row))
            start, low, high = row, value, value
    return [*runs, (start, len(residual))]
