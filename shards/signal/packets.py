"""The clock behind packets of samples: from the time of each packet, and its number of samples.

packets = Packets(time_s, counts, fresh)
starts, note = fit_packets(packets, limits, tolerance_s=0.0025, where="device watch")
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from shards.settings import SHARED_TIMES, SensorLimits

DEVIATIONS = 4.0  # of the times about the line, beyond which packets were lost
LOSS = 0.75  # of a packet's extent: times that deviate more cannot tell of lost packets
FEWEST = 3  # packets of a stretch of the clock that is to be trusted
TYPICAL = 0.1  # by which a packet's number of samples may differ from the usual one
DECISIVE = 0.7  # ratio of deviations from which on one reading of the times is the right one
FEWEST_TO_DECIDE = 20  # packets
DRIFT_PACKETS, DRIFT_S = 64, 60.0  # over which times are averaged to follow a clock that drifts


@dataclass
class Packets:
    """Packets in order. time_s, counts: of each ``(n,)``. fresh: a clock was set before it.

    period_s: spacing of samples by the usual packet. resumed: packets before which the clock does
    not go on, filled in by the fits.
    """

    time_s: np.ndarray
    counts: np.ndarray
    fresh: np.ndarray
    period_s: float = 0.0
    resumed: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def __post_init__(self) -> None:
        steps, weights = self._steps()
        if len(steps):
            order = np.argsort(steps)
            heap = np.cumsum(weights[order])
            self.period_s = float(steps[order][np.searchsorted(heap, heap[-1] / 2)])
        self.resumed = np.zeros(len(self.time_s), bool)

    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Seconds a sample from each packet to the next, and how many samples say so."""
        going_on = ~self.fresh[1:]
        counts = self.counts[:-1][going_on]
        return np.diff(self.time_s)[going_on] / counts, counts

    def periods(self) -> tuple[float, float]:
        """Spacings to begin a fit with: the usual one, and the mean without the odd ones."""
        steps, weights = self._steps()
        near = np.abs(steps / self.period_s - 1) < 0.5
        return self.period_s, float(np.average(steps[near], weights=weights[near]))

    @property
    def usual_count(self) -> float:
        """Samples of the packet that a sample usually lies in."""
        order = np.sort(self.counts)
        heap = np.cumsum(order)
        return float(order[np.searchsorted(heap, heap[-1] / 2)])

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
        before[self.fresh] = far
        after[:-1][self.fresh[1:]] = far
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

    Fills in ``packets.period_s`` and ``packets.resumed``. ValueError naming ``where`` where nothing
    tells which sample a time belongs to, or the times scatter too much.
    """
    lines = {which: _Line.of(packets, which) for which in ("first", "last")}
    which = limits.shared_times or _belongs_to(packets, lines, tolerance_s)
    if which is None:
        raise ValueError(which_sample(packets, where, packets.extent_s))
    line = lines.get(which) or _Line.of(packets, which)
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


def which_sample(packets: Packets, where: str, apart_s: float) -> str:
    """The message of a sensor for which nothing tells what its times are those of."""
    return (
        f"{where}: about {packets.usual_count:.0f} samples, {apart_s:.3g} s, share each time, and "
        "nothing tells which of them it is that of; say so with --shared-times first (packets "
        "stamped as they begin, times cut to whole steps), middle (times rounded) or last (packets "
        "stamped as they end)"
    )


def _belongs_to(packets: Packets, lines: dict[str, _Line], tolerance_s: float) -> str | None:
    """Which sample of a packet its time is that of; None where nothing tells."""
    if packets.extent_s / 2 <= tolerance_s:
        return "middle"
    period_s = packets.period_s
    if len(packets.counts) >= FEWEST_TO_DECIDE:
        first, last = lines["first"].deviation_s, lines["last"].deviation_s
        if min(first, last) < DECISIVE * max(first, last) and max(first, last) > 0.1 * period_s:
            return "first" if first < last else "last"
    # A clock that begins with the recording begins with its first sample.
    begin_s, count = float(packets.time_s[0]), float(packets.counts[0])
    if abs(begin_s) < period_s / 2:
        return "first"
    usual = abs(count - packets.usual_count) <= TYPICAL * packets.usual_count
    return "last" if usual and abs(begin_s - (count - 1) * period_s) < period_s / 2 else None


@dataclass
class _Line:
    """The even clock through the packets' times, for one reading of them.

    which: sample of a packet that its time belongs to. segments: ranges of packets without loss.
    deviation_s: standard deviation of the times about it.
    """

    which: str
    period_s: float
    segments: list[np.ndarray]
    deviation_s: float
    resumed: np.ndarray

    @classmethod
    def of(cls, packets: Packets, which: str) -> _Line:
        counts = packets.counts.astype(np.float64)
        place = np.cumsum(counts) - counts + (counts - 1) * SHARED_TIMES.index(which) / 2
        best: tuple[int, float, list[np.ndarray]] | None = None
        for period_s in packets.periods():
            for _ in range(3):
                cuts = _cuts(packets, place, period_s)
                segments = _segments(packets, place, period_s, cuts)
                period_s = period_of(packets.time_s, place, segments) or period_s
            held = sum(len(segment) for segment in segments)
            if best is None or held > best[0]:
                best = held, period_s, segments
        assert best is not None
        _, period_s, segments = best
        missed = [_missed(packets, place, period_s, segment) for segment in segments]
        every = np.concatenate(missed) if missed else np.zeros(1)
        resumed = np.zeros(len(counts), bool)
        for segment in segments:
            resumed[segment[0]] = True
        return cls(which, period_s, segments, float(every.std()), resumed)

    def starts(self, packets: Packets) -> np.ndarray:
        """Time of the first sample of each packet."""
        counts = packets.counts.astype(np.float64)
        before = np.cumsum(counts) - counts
        offset = (counts - 1) * SHARED_TIMES.index(self.which) / 2
        starts = np.full(len(counts), np.nan)
        for segment in self.segments:
            missed = packets.time_s[segment] - self.period_s * (before + offset)[segment]
            level = _smooth(missed, counts[segment], self.period_s)
            starts[segment] = level + self.period_s * before[segment]
        return starts


def _cuts(packets: Packets, place: np.ndarray, period_s: float) -> np.ndarray:
    """Between which packets ``(n - 1,)`` the times leave the line: something is missing there."""
    steps = np.diff(packets.time_s) - period_s * np.diff(place)
    usual = np.median(np.abs(steps - np.median(steps)))
    limit_s = max(DEVIATIONS * 1.4826 * usual, period_s / 2)
    limit_s = min(limit_s, LOSS * max(packets.usual_count * period_s, period_s))
    return (np.abs(steps) > limit_s) | packets.fresh[1:]


def _segments(
    packets: Packets, place: np.ndarray, period_s: float, cuts: np.ndarray
) -> list[np.ndarray]:
    """Packets without loss between them, as numbers; such of odd sizes next to a loss left out."""
    counts, usual = packets.counts, packets.usual_count
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(counts)]
    even = (np.abs(counts - usual) <= TYPICAL * usual).mean() > 0.9
    segments = []
    for first, last in itertools.pairwise(edges):
        while first < last and first > 0 and even and abs(counts[first] - usual) > TYPICAL * usual:
            first += 1
        if last < len(counts) and (not even or abs(counts[last - 1] - usual) > TYPICAL * usual):
            last -= 1  # samples are missing in it, who knows where
        if last - first >= FEWEST:
            segments.append(np.arange(first, last))
    return _joined(packets, place, period_s, segments)


def _joined(
    packets: Packets, place: np.ndarray, period_s: float, segments: list[np.ndarray]
) -> list[np.ndarray]:
    """Segments joined where the second goes on the line of the first: a packet was only late."""
    joined: list[np.ndarray] = []
    for segment in segments:
        if joined and not packets.fresh[joined[-1][-1] + 1 : segment[0] + 1].any():
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


def _missed(
    packets: Packets, place: np.ndarray, period_s: float, segment: np.ndarray
) -> np.ndarray:
    """How far the times of a segment lie off its line, s."""
    missed = packets.time_s[segment] - period_s * place[segment]
    return np.asarray(missed - _smooth(missed, packets.counts[segment], period_s))


def _smooth(missed: np.ndarray, counts: np.ndarray, period_s: float) -> np.ndarray:
    """The level of the times over the line, averaged so long that it only follows a drift."""
    length = max(DRIFT_PACKETS, round(DRIFT_S / max(period_s * counts.mean(), 1e-9)))
    blocks = len(missed) // length
    if blocks < 2:
        return np.full(len(missed), missed.mean())
    parts = np.array_split(np.arange(len(missed)), blocks)
    centres = [part.mean() for part in parts]
    levels = [missed[part].mean() for part in parts]
    return np.interp(np.arange(len(missed)), centres, levels)
