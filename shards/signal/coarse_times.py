"""The clock behind times that were cut, or rounded, to steps of up to seconds.

step_s = coarse_step(packets)
starts, note = fit_coarse(packets, step_s, limits, tolerance_s=0.0025, where="device watch")

A time that was cut tells that its first sample came at or after it, and the sample before it
earlier. All these bounds together leave an even clock little room, none where samples were lost.
"""

from __future__ import annotations

import itertools

import numpy as np

from shards.settings import SensorLimits
from shards.signal.packets import FEWEST, Packets, period_of, which_sample

STEPS_S = (1.0, 0.5, 0.25, 0.2, 0.1, 0.05, 0.04, 0.025, 0.02, 0.01, 0.005, 0.004, 0.002, 0.001)
COARSE = 0.25  # of the samples' spacing: finer steps do no harm
SHARED = 0.05  # of rows; fewer that share a time are an accident of a clock that is even
EXPLAINED = 1.5  # steps; samples that share a time over longer were sent in packets
EVEN, NARROW = 0.1, 0.6  # widths: times that step with the samples, and such that bound them well
SEARCHES = 60  # of the narrowest period
UNEVEN, UNEVEN_SHARE = 0.1, 0.01  # spacings off by that much of it, and how many of all, do harm
ROOM = 1.02  # widths of the bounds that times may scatter over
SLACK = 0.25  # widths by which the bounds of two stretches may miss each other
BESIDE_LOSS = 4  # times on both sides of lost samples that are not trusted


def coarse_step(packets: Packets) -> float | None:
    """The longest step that all times are multiples of, where it is coarse."""
    period_s = packets.period_s
    if not period_s > 0:
        return None
    for step_s in STEPS_S:
        if step_s < COARSE * period_s:
            return None
        places = packets.time_s / step_s
        if (np.abs(places - np.rint(places)) < 1e-4).all():
            if packets.usual_count > 1:
                return step_s if packets.usual_count * period_s < EXPLAINED * step_s else None
            several = packets.counts[packets.counts > 1].sum() / packets.counts.sum()
            if several > SHARED or _steps_along(packets.time_s, step_s):
                return step_s
            return None
    return None


def is_uneven(time_s: np.ndarray, period_s: float) -> bool:
    """Whether many spacings are no whole number of usual ones, as lost samples leave them."""
    steps = np.diff(time_s) / period_s
    return (
        bool((np.abs(steps - np.rint(steps)) > UNEVEN).mean() > UNEVEN_SHARE)
        if len(steps)
        else False
    )


def _steps_along(time_s: np.ndarray, step_s: float) -> bool:
    """Whether the times are those of an even clock, each cut to a step; not of one with losses."""
    spacing_s = np.diff(time_s)
    mean_s = float(spacing_s[spacing_s < 3 * np.median(spacing_s)].mean())
    near = np.abs(spacing_s - mean_s) < step_s
    return is_uneven(time_s, float(np.median(spacing_s))) and bool(near.mean() > 1 - SHARED)


def fit_coarse(
    packets: Packets, step_s: float, limits: SensorLimits, *, tolerance_s: float, where: str
) -> tuple[np.ndarray, str]:
    """Time of the first sample of each packet ``(n,)``, NaN where it is unknown, and a note.

    Fills in ``packets.period_s`` and ``packets.resumed``. ValueError naming ``where`` where nothing
    tells whether times were cut or rounded, and the difference matters.
    """
    place = np.cumsum(packets.counts).astype(np.float64) - packets.counts
    found = [_narrowest(packets, place, period_s, step_s) for period_s in packets.periods()]
    period_s, pieces = max(found, key=lambda one: sum(len(piece) for piece in one[1]))
    if not pieces:
        return np.full(len(place), np.nan), ""
    width_s = min(period_s, step_s)
    missed = packets.time_s - period_s * place
    level = _level(packets, missed, pieces, step_s, width_s, limits, tolerance_s)
    if level is None:
        raise ValueError(which_sample(packets, where, (packets.usual_count * period_s)))
    level_s, told = level
    starts = np.full(len(place), np.nan)
    main = max(pieces, key=len)
    base = _middle(missed[main])
    first_s = level_s
    level_s += period_s * round((base - _middle(missed[pieces[0]])) / period_s)
    packets.resumed = np.zeros(len(place), bool)
    for piece in pieces:
        lost = round((_middle(missed[piece]) - base) / period_s)
        off = missed[piece] - lost * period_s - base
        if np.abs(off).max() > (ROOM / 2 + SLACK) * width_s:
            continue  # on no clock of whole samples
        starts[piece] = level_s + period_s * (place[piece] + lost)
        packets.resumed[piece[0]] = True
    if pieces[0][0] == 1 and not packets.fresh[1]:  # the first time's samples are but a part
        starts[0], packets.resumed[1] = first_s, False
    packets.period_s = period_s
    return starts, f"on one clock of {1 / period_s:.5g} Hz, {told} to steps of {step_s:g} s"


def _level(
    packets: Packets,
    missed: np.ndarray,
    pieces: list[np.ndarray],
    step_s: float,
    width_s: float,
    limits: SensorLimits,
    tolerance_s: float,
) -> tuple[float, str] | None:
    """Time of sample 0 on the even clock, and what was done to the times; None where unknown."""
    low_s = float(missed[pieces[0]].max())
    high_s = float(missed[pieces[0]].min()) + width_s
    low_s, high_s = min(low_s, high_s), max(low_s, high_s)
    moved = {"first": (0.0, "cut"), "middle": (step_s / 2, "rounded"), "last": (step_s, "raised")}
    slack_s = 0.1 * width_s
    begin_s = float(packets.time_s[0])
    if limits.shared_times is None:
        # A clock that begins with the recording begins with its first sample.
        for shift_s, told in list(moved.values())[:2] if begin_s == 0 else ():
            if low_s - shift_s - slack_s <= 0 <= high_s - shift_s + slack_s:
                return 0.0, f"their times having been {told}"
        if step_s / 4 <= tolerance_s:
            return (low_s + high_s) / 2 - step_s / 4, "their times having been cut or rounded"
        return None
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
    return period_s, _pieces(packets, place, period_s, min(period_s, step_s))


def _pieces(
    packets: Packets, place: np.ndarray, period_s: float, width_s: float
) -> list[np.ndarray]:
    """Runs of times whose bounds one clock fits; what lies beside lost samples is left out."""
    missed = packets.time_s - period_s * place
    cuts = (np.abs(np.diff(missed)) > ROOM * width_s) | packets.fresh[1:]
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(missed)]
    pieces = []
    for first, last in itertools.pairwise(edges):
        for start, stop in _fitting(missed[first:last], ROOM * width_s):
            begin = first + start + (BESIDE_LOSS if start else 0)
            end = first + stop - (BESIDE_LOSS if first + stop < last else 0)
            if last < len(missed) and first + stop == last:
                end -= 1  # samples are missing in it, who knows where
            if end - begin >= FEWEST:
                pieces.append(np.arange(begin, end))
    spreads = [float(np.ptp(missed[piece])) for piece in pieces]
    if max(spreads, default=0.0) < EVEN * width_s:
        return pieces
    # Where the samples after a loss lie is known as well as the bounds of their times are narrow.
    return [piece for piece, wide in zip(pieces, spreads, strict=True) if wide > NARROW * width_s]


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
