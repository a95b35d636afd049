"""Samples that share a time, put on one clock.

rows, retiming = on_one_clock(rows, limits, tolerance_s=0.005, where="device watch, sensor acc_x")

Recorders that send packets, or that cut their times to whole seconds, give many samples one time.
Which of them it belongs to, and how far apart they are, follows from how many samples come with
each time: the counts, added up, lie on a straight line over the times (``shards.signal.packets``).
Where nothing tells whether a time is that of the first, the middle or the last of its samples, and
the difference matters, the sensor is refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from primus_scale.counted import counted
from shards.settings import SensorLimits
from shards.signal.coarse_times import FEWEST_ODD, coarse_step, fit_coarse, odd_spacings
from shards.signal.packets import Packets, fit_packets
from shards.signal.sample_buffer import Column, spacings

MOST_SHARED = 0.2  # share of rows with shared times; up to it each is put between its neighbours
BURST_RATIO = 4.0  # mean over median spacing; above it samples came in bursts
LONGEST_SPACING_S = 1.0  # longer spacings count as this in the mean
PACKETS_SHARE = 0.01  # of groups with equal and different values; above it they are packets
SAME_ROUGHNESS = 1.001  # ratio up to which two clocks explain a signal equally well
FEWEST_SENT_TWICE = 4  # rows; a packet of so many, half of them repeats, was sent twice


class Retiming(NamedTuple):
    """What was found. duplicates: rows dropped as repetitions. shared: rows that share a time.

    unusable: rows dropped because their place on the clock is unknown. note: what was done.
    """

    duplicates: int = 0
    shared: int = 0
    unusable: int = 0
    note: str = ""


def on_one_clock(
    rows: Column, limits: SensorLimits, *, tolerance_s: float, where: str
) -> tuple[Column, Retiming]:
    """Ordered rows with rising times, each sample at its own.

    tolerance_s: by which times may be off all together. ValueError naming ``where`` and the flag
    that helps, where the times say too little.
    """
    groups = _groups(rows, 0.0)
    duplicates = 0
    if groups is not None and groups.repeats.any():
        repeated = _repeated(groups)
        if repeated.any():
            rows, duplicates = _without_repeats(rows, groups, repeated)
            groups = _groups(rows, 0.0)
    if groups is None:
        groups = _bursts(rows) or _single_rows(rows, tolerance_s)
    if groups is None:
        return rows, Retiming(duplicates)
    shared = int(groups.counts[groups.counts > 1].sum())
    packets = Packets(*groups.clock)
    if not packets.period_s > 0:
        raise ValueError(
            f"{where}: the times of its {counted(len(rows), 'sample')} do not go on "
            f"({counted(len(groups.counts), 'time')} in all): its clock stood still; correct its "
            "times or leave it out"
        )
    by_steps = _by_steps(rows, groups, limits, tolerance_s, where)
    if by_steps is not None:
        retimed, unusable, note = by_steps
    elif shared == 0:
        return rows, Retiming(duplicates)
    else:
        starts, note = None, "each next to its neighbours"
        if shared > MOST_SHARED * len(rows) and packets.extent_s / 2 > tolerance_s:
            starts, note = fit_packets(packets, limits, tolerance_s=tolerance_s, where=where)
        retimed, unusable = _retimed(rows, packets, starts)
    if not len(retimed):
        raise ValueError(
            f"{where}: its samples share times, and too few of these lie on one even clock to tell "
            "where the samples lie; leave it out, or save its own times"
        )
    summary = f"{where}: {shared:,} of {len(rows):,} samples shared a time with others; put {note}"
    if not shared:
        summary = f"{where}: the times of all {len(rows):,} samples are coarse; put {note}"
    return retimed, Retiming(duplicates, shared, unusable, summary)


def _by_steps(
    rows: Column, groups: _Groups, limits: SensorLimits, tolerance_s: float, where: str
) -> tuple[Column, int, str] | None:
    """Rows on the clock behind coarse times, how many were dropped, and a note; None: no such."""
    packets = Packets(*groups.clock)
    step_s = coarse_step(packets, tolerance_s)
    if step_s is None:
        return None
    fit = fit_coarse(packets, step_s, limits, tolerance_s=tolerance_s, where=where)
    retimed, unusable = _retimed(rows, packets, fit.starts)
    shared = int(groups.counts[groups.counts > 1].sum())
    if shared <= MOST_SHARED * len(rows):  # samples may be missing instead
        own = _retimed(rows, Packets(*groups.clock), None)[0] if shared else rows
        if unusable or _roughness(own) <= SAME_ROUGHNESS * _roughness(retimed):
            return None
    if fit.refusal:
        raise ValueError(fit.refusal)
    return retimed, unusable, fit.note


class _Groups(NamedTuple):
    """Groups of rows of one time: time, number of rows, repeats among them, and ``clock_set``."""

    time_s: np.ndarray
    counts: np.ndarray
    repeats: np.ndarray
    clock_set: np.ndarray

    @property
    def clock(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, numbers of rows, and where a clock was set, for ``Packets``."""
        return self.time_s, self.counts, self.clock_set


def _groups(rows: Column, near_s: float) -> _Groups | None:
    """Runs of rows whose spacing is at most ``near_s``; None where no two rows are that close."""
    parts: list[tuple[np.ndarray, ...]] = []
    last_s, any_near = -np.inf, False
    for block in rows.blocks():
        time_s = block["time_s"]
        begins = (np.diff(time_s, prepend=last_s) > near_s) | block["clock_set"]
        any_near |= not begins.all()
        first = np.flatnonzero(begins)
        edges = first if len(first) and first[0] == 0 else np.append(0, first)
        counts = np.diff(np.append(edges, len(block)))
        repeats = np.add.reduceat(block["repeat"].astype(np.int64), edges)
        if len(edges) > len(first):  # goes on from the block before
            parts[-1][1][-1] += counts[0]
            parts[-1][2][-1] += repeats[0]
            counts, repeats = counts[1:], repeats[1:]
        if len(first):
            parts.append((time_s[first].copy(), counts, repeats, block["clock_set"][first].copy()))
        last_s = time_s[-1]
    if not any_near:
        return None
    return _Groups(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _repeated(groups: _Groups) -> np.ndarray:
    """In which groups ``repeats`` are rows written twice, rather than samples of equal value."""
    several = groups.counts > 1
    mixed = several & (groups.repeats > 0) & (groups.repeats < groups.counts - 1)
    differ = several & (groups.repeats < groups.counts - 1)
    if differ.sum() <= PACKETS_SHARE * several.sum():
        return groups.repeats > 0
    # Packets, where equal values are samples, save in one that was sent twice.
    return mixed & (groups.counts >= FEWEST_SENT_TWICE) & (2 * groups.repeats == groups.counts)


def _without_repeats(rows: Column, groups: _Groups, which: np.ndarray) -> tuple[Column, int]:
    """Rows without the repeats of the groups ``which``, and how many were left out."""
    kept, dropped, first = Column(rows.dtype), 0, 0
    ends = np.cumsum(groups.counts)
    for block in rows.blocks():
        group = np.searchsorted(ends, np.arange(first, first + len(block)), side="right")
        leave = block["repeat"] & which[group]
        kept.append(block[~leave])
        dropped += int(leave.sum())
        first += len(block)
    return kept, dropped


def _single_rows(rows: Column, tolerance_s: float) -> _Groups | None:
    """Each row by itself, where their spacings are so uneven that coarse times may be why."""
    odd = sum(odd_spacings(block["time_s"], tolerance_s) for block in rows.blocks())
    if odd < FEWEST_ODD:
        return None
    time_s = np.concatenate([block["time_s"] for block in rows.blocks()])
    clock_set = np.concatenate([block["clock_set"] for block in rows.blocks()])
    return _Groups(time_s, np.ones(len(rows), np.int64), np.zeros(len(rows), np.int64), clock_set)


def _bursts(rows: Column) -> _Groups | None:
    """Groups of samples much closer than they are on average: times of arrival of packets."""
    total, count = 0.0, 0
    medians: list[np.ndarray] = []
    for _, spacing_s in spacings(rows):
        if len(spacing_s):
            total += float(np.minimum(spacing_s, LONGEST_SPACING_S).sum())
            count += len(spacing_s)
            medians.append(np.quantile(spacing_s, [0.5]))
    if not count or np.median(np.concatenate(medians)) * BURST_RATIO >= total / count:
        return None
    return _groups(rows, total / count / BURST_RATIO)


def _roughness(rows: Column) -> float:
    """Mean distance of samples from the cubic through their neighbours, all axes together.

    Wrong times make a signal rough.
    """
    total, count, before = 0.0, 0, np.empty(0, rows.dtype)
    for block in rows.blocks():
        both = np.concatenate([before[-4:], block])
        before = block
        if len(both) < 5:
            continue
        time_s = np.stack([both["time_s"][n : len(both) - 4 + n] for n in (0, 1, 3, 4)])
        time_s = time_s - both["time_s"][2:-2]
        values = both["values"].astype(np.float64)
        error = values[2:-2].copy()
        for n, place in enumerate((0, 1, 3, 4)):
            others = np.delete(time_s, n, axis=0)
            weight = np.prod(-others / (time_s[n] - others), axis=0)
            error -= weight[:, None] * values[place : len(both) - 4 + place]
        total += float(np.linalg.norm(error, axis=1).sum())
        count += len(error)
    return total / max(count, 1)


def _retimed(rows: Column, packets: Packets, starts: np.ndarray | None) -> tuple[Column, int]:
    """Rows at their times. starts: of each packet, NaN where unknown (None: next to neighbours)."""
    if starts is None:
        begin_s, step_s = packets.between_neighbours()
        clock_set = packets.clock_set
    else:
        begin_s, step_s = starts, np.full(len(starts), packets.period_s)
        clock_set = packets.clock_set | packets.resumed
    retimed, first, unusable, latest_s = Column(rows.dtype), 0, 0, -np.inf
    before = np.cumsum(packets.counts) - packets.counts
    for block in rows.blocks():
        numbers = np.arange(first, first + len(block))
        group = np.searchsorted(before, numbers, side="right") - 1
        block = block.copy()
        place = numbers - before[group]
        block["time_s"] = begin_s[group] + place * step_s[group]
        block["clock_set"] = clock_set[group] & (place == 0)
        known = np.isfinite(block["time_s"])
        # Behind a clock that was set, a packet may reach into the time of the one before.
        reached = np.maximum.accumulate(np.append(latest_s, block["time_s"][known]))
        known[known] = block["time_s"][known] > reached[:-1]
        latest_s = reached[-1]
        retimed.append(block[known])
        unusable += int((~known).sum())
        first += len(block)
    return retimed, unusable
