"""The clock behind packets of samples: from the time of each packet, and its number of samples.

packets = Packets(time_s, counts, clock_set)
starts, note = fit_packets(packets, limits, tolerance_s=0.0025, where="device watch")
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from shards.settings import SHARED_TIMES, SensorLimits

MOST_DEVIATIONS = 4.0  # standard, of the times about the line; beyond them packets were lost
MOST_DEVIATION_EXTENTS = 0.75  # as the former, as a share of a packet's extent
FEWEST_PACKETS = 3  # of a segment; shorter ones are left out
COUNT_TOLERANCE = 0.1  # of the usual number of samples in a packet
MOST_DEVIATION_RATIO = 0.7  # of the better of two readings of the times to the worse
FEWEST_TO_DECIDE = 20  # packets, to compare two readings of the times
DRIFT_PACKETS, DRIFT_S = 64, 60.0  # over which times are averaged to follow a drifting clock


@dataclass
class Packets:
    """Packets in order. time_s, counts: of each ``(n,)``. clock_set: a clock was set before it.

    period_s: spacing of samples by the usual packet. resumed: packets before which the clock does
    not go on, filled in by the fits.
    """

    time_s: np.ndarray
    counts: np.ndarray
    clock_set: np.ndarray
    period_s: float = 0.0
    resumed: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def __post_init__(self) -> None:
        steps, weights = self._steps()
        if len(steps):
            order = np.argsort(steps)
            cumulative = np.cumsum(weights[order])
            self.period_s = float(steps[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
        self.resumed = np.zeros(len(self.time_s), bool)

    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds a sample from each packet to the next, and the number of samples as weight."""
        continues = ~self.clock_set[1:]
        counts = self.counts[:-1][continues]
        return np.diff(self.time_s)[continues] / counts, counts

    def periods(self) -> tuple[float, float]:
        """Spacings to begin a fit with: the usual one, and the mean of those near it."""
        steps, weights = self._steps()
        near = np.abs(steps / self.period_s - 1) < 0.5
        return self.period_s, float(np.average(steps[near], weights=weights[near]))

    @property
    def usual_count(self) -> float:
        """Median number of samples in a packet, weighted by samples."""
        order = np.sort(self.counts)
        cumulative = np.cumsum(order)
        return float(order[np.searchsorted(cumulative, cumulative[-1] / 2)])

    @property
    def extent_s(self) -> float:
        """From the first to the last sample of a usual packet."""
        return (self.usual_count - 1) * self.period_s

    def between_neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Time of each packet's first sample, and the spacing of its samples, next to neighbours.

        Samples of one time fill the time to the next packet, or from the one before, where there is
        room for all at the usual spacing; otherwise the time between both.
        """
        time_s, counts, period_s = self.time_s, self.counts, self.period_s
        far = np.inf
        after = np.append(np.diff(time_s), far)
        before = np.insert(np.diff(time_s), 0, far)
        before[self.clock_set] = far
        after[:-1][self.clock_set[1:]] = far
        needed = (counts - 0.5) * period_s
        begin_s, step_s = time_s.copy(), np.full(len(counts), period_s)
        forward = after >= needed
        step_s[forward] = np.minimum(period_s, after[forward] / counts[forward])
        backward = ~forward & (before >= needed)
        step_s[backward] = np.minimum(period_s, before[backward] / counts[backward])
        begin_s[backward] -= (counts[backward] - 1) * step_s[backward]
        tight = ~forward & ~backward
        step_s[tight] = np.minimum(before, after)[tight] / counts[tight]
        begin_s[tight] -= step_s[tight] * (counts[tight] - 1) / 2
        step_s[tight] *= 0.99  # times go on rising
        return begin_s, step_s


def fit_packets(
    packets: Packets, limits: SensorLimits, *, tolerance_s: float, where: str
) -> tuple[np.ndarray, str]:
    """Time of the first sample of each packet ``(n,)``, NaN where it is unknown, and a note.

    Fills in ``packets.period_s`` and ``packets.resumed``. ValueError naming ``where`` where it
    is unknown which sample a time belongs to, or the times scatter too much.
    """
    lines = {which: _PacketClock.of(packets, which) for which in ("first", "last")}
    which = limits.shared_times or _belongs_to(packets, lines, tolerance_s)
    if which is None:
        raise ValueError(ambiguous_times(packets, where, packets.extent_s))
    line = lines.get(which) or _PacketClock.of(packets, which)
    if line.deviation_s > limits.max_jitter_s:
        raise ValueError(
            f"{where}: about {packets.usual_count:.0f} samples share each time, and the times lie "
            f"{line.deviation_s:.3g} s off an even clock (standard deviation), more than "
            f"{limits.max_jitter_s:g} s: where the samples lie cannot be told (--max-jitter-s)"
        )
    packets.period_s = line.period_s
    packets.resumed = line.resumed
    return line.starts(packets), (
        f"on one clock of {1 / line.period_s:.5g} Hz, each time being that of the {which} of its "
        "samples"
    )


def ambiguous_times(packets: Packets, where: str, extent_s: float) -> str:
    """The error where it is unknown which sample of a packet its time belongs to."""
    return (
        f"{where}: about {packets.usual_count:.0f} samples, {extent_s:.3g} s, share each time, and "
        "it is unknown to which of them it belongs; state it with --shared-times first (packets "
        "stamped as they begin, times cut to whole steps), middle (times rounded) or last (packets "
        "stamped as they end)"
    )


def _belongs_to(packets: Packets, lines: dict[str, _PacketClock], tolerance_s: float) -> str | None:
    """Which sample of a packet its time is that of; None where it is unknown."""
    if packets.extent_s / 2 <= tolerance_s:
        return "middle"
    period_s = packets.period_s
    if len(packets.counts) >= FEWEST_TO_DECIDE:
        first, last = lines["first"].deviation_s, lines["last"].deviation_s
        if (
            min(first, last) < MOST_DEVIATION_RATIO * max(first, last)
            and max(first, last) > 0.1 * period_s
        ):
            return "first" if first < last else "last"
    # A clock that begins with the recording begins with its first sample.
    begin_s, count = float(packets.time_s[0]), float(packets.counts[0])
    if abs(begin_s) < period_s / 2:
        return "first"
    usual = abs(count - packets.usual_count) <= COUNT_TOLERANCE * packets.usual_count
    return "last" if usual and abs(begin_s - (count - 1) * period_s) < period_s / 2 else None


@dataclass
class _PacketClock:
    """The even clock through the packets' times, where they belong to one sample of each packet.

    which: sample of a packet that its time belongs to. segments: ranges of packets without loss.
    deviation_s: standard deviation of the times about it.
    """

    which: str
    period_s: float
    segments: list[np.ndarray]
    deviation_s: float
    resumed: np.ndarray

    @classmethod
    def of(cls, packets: Packets, which: str) -> _PacketClock:
        counts = packets.counts.astype(np.float64)
        place = np.cumsum(counts) - counts + (counts - 1) * SHARED_TIMES.index(which) / 2
        best: tuple[int, float, list[np.ndarray]] | None = None
        for period_s in packets.periods():
            for _ in range(3):
                cuts = _cuts(packets, place, period_s)
                segments = _segments(packets, place, period_s, cuts)
                period_s = period_of(packets.time_s, place, segments) or period_s
            fitted = sum(len(segment) for segment in segments)
            if best is None or fitted > best[0]:
                best = fitted, period_s, segments
        assert best is not None
        _, period_s, segments = best
        residuals = [_residuals(packets, place, period_s, segment) for segment in segments]
        all_residuals = np.concatenate(residuals) if residuals else np.zeros(1)
        resumed = np.zeros(len(counts), bool)
        for segment in segments:
            resumed[segment[0]] = True
        return cls(which, period_s, segments, float(all_residuals.std()), resumed)

    def starts(self, packets: Packets) -> np.ndarray:
        """Time of the first sample of each packet."""
        counts = packets.counts.astype(np.float64)
        before = np.cumsum(counts) - counts
        offset = (counts - 1) * SHARED_TIMES.index(self.which) / 2
        starts = np.full(len(counts), np.nan)
        for segment in self.segments:
            residual = packets.time_s[segment] - self.period_s * (before + offset)[segment]
            level = _smooth(residual, counts[segment], self.period_s)
            starts[segment] = level + self.period_s * before[segment]
        return starts


def _cuts(packets: Packets, place: np.ndarray, period_s: float) -> np.ndarray:
    """After which packets ``(n - 1,)`` the times leave the line: samples are missing there."""
    steps = np.diff(packets.time_s) - period_s * np.diff(place)
    usual = np.median(np.abs(steps - np.median(steps)))
    limit_s = max(MOST_DEVIATIONS * 1.4826 * usual, period_s / 2)
    limit_s = min(limit_s, MOST_DEVIATION_EXTENTS * max(packets.usual_count * period_s, period_s))
    return (np.abs(steps) > limit_s) | packets.clock_set[1:]


def _segments(
    packets: Packets, place: np.ndarray, period_s: float, cuts: np.ndarray
) -> list[np.ndarray]:
    """Numbers of packets without loss between them, without packets of odd size next to a loss."""
    counts, usual = packets.counts, packets.usual_count
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(counts)]
    even = (np.abs(counts - usual) <= COUNT_TOLERANCE * usual).mean() > 0.9
    segments = []
    for first, last in itertools.pairwise(edges):
        while (
            first < last
            and first > 0
            and even
            and abs(counts[first] - usual) > COUNT_TOLERANCE * usual
        ):
            first += 1
        if last < len(counts) and (
            not even or abs(counts[last - 1] - usual) > COUNT_TOLERANCE * usual
        ):
            last -= 1  # samples are missing in it, at an unknown place
        if last - first >= FEWEST_PACKETS:
            segments.append(np.arange(first, last))
    return _joined(packets, place, period_s, segments)


def _joined(
    packets: Packets, place: np.ndarray, period_s: float, segments: list[np.ndarray]
) -> list[np.ndarray]:
    """Segments joined where the second continues the line of the first: a packet was late."""
    joined: list[np.ndarray] = []
    for segment in segments:
        if joined and not packets.clock_set[joined[-1][-1] + 1 : segment[0] + 1].any():
            both = [
                np.median(packets.time_s[one] - period_s * place[one])
                for one in (joined[-1][-20:], segment[:20])
            ]
            if abs(both[1] - both[0]) < period_s / 2:
                joined[-1] = np.arange(joined[-1][0], segment[-1] + 1)
                continue
        joined.append(segment)
    return joined


def period_of(time_s: np.ndarray, place: np.ndarray, segments: list[np.ndarray]) -> float:
    """Seconds a sample, over all segments, each with a level of its own; zero where unknown."""
    above = below = 0.0
    for segment in segments:
        x = place[segment] - place[segment].mean()
        above += float(x @ (time_s[segment] - time_s[segment].mean()))
        below += float(x @ x)
    return above / below if below else 0.0


def _residuals(
    packets: Packets, place: np.ndarray, period_s: float, segment: np.ndarray
) -> np.ndarray:
    """Distance of the times of a segment from its line, s."""
    residual = packets.time_s[segment] - period_s * place[segment]
    return np.asarray(residual - _smooth(residual, packets.counts[segment], period_s))


def _smooth(residual: np.ndarray, counts: np.ndarray, period_s: float) -> np.ndarray:
    """Moving mean of residuals, over so long a time that it follows drift only."""
    length = max(DRIFT_PACKETS, round(DRIFT_S / max(period_s * counts.mean(), 1e-9)))
    blocks = len(residual) // length
    if blocks < 2:
        return np.full(len(residual), residual.mean())
    parts = np.array_split(np.arange(len(residual)), blocks)
    centres = [part.mean() for part in parts]
    levels = [residual[part].mean() for part in parts]
    return np.interp(np.arange(len(residual)), centres, levels)
