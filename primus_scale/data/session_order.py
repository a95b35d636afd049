"""The order of an epoch for contrast within sessions: units of W windows, most of one session.

A batch of ``S * W`` windows consists of S units. The shards must be packed in the order
``sessions``: each of their records holds *parts*, which are windows of one session in order of
time.

**Units.** The windows of a part are grouped into pairs that are near in time, at distances drawn
anew in every epoch. The pairs are shuffled and cut into units of W windows. Of each part less than
W windows are left over. These are put together into units of several sessions.

**Mixing.** As in ``MixedOrder``, an epoch takes the records in a permuted order, in groups of
``blocks`` records. In a group each part gives its first unit, in a shuffled order, then each its
second, and so on. So the units of a batch are of different sessions where a group has S of them.
The units of several sessions come between, at random positions.

**Epochs.** An epoch is a whole number of units. The windows that are left over in a group, less
than W, are carried over to the next group. Those of the last group are left out: less than W
windows of all data, other ones in every epoch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from primus_scale.config import NearConfig
from primus_scale.counted import counted
from primus_scale.data.epoch_order import EpochOrder, Rows, join, permutation, random_bits
from primus_scale.data.index import SessionPart

_TOLERANCE = 1e-6  # of a distance counted in windows: start times are rounded to microseconds


class SessionUnits(NamedTuple):
    """How units are made.

    windows: how many a unit has; even. min_s, max_s: least and most seconds between the starts of
    two windows that are near in time.
    """

    windows: int
    min_s: float
    max_s: float

    def distances(self, step_s: float) -> range:
        """Distances of near windows, counted in windows, where the starts are step_s apart."""
        if step_s <= 0:
            return range(0)
        least = max(1, math.ceil(self.min_s / step_s - _TOLERANCE))
        return range(least, math.floor(self.max_s / step_s + _TOLERANCE) + 1)


class SessionOrder(EpochOrder):
    """Units of windows of one session; see the module.

    parts: of each record, in the order of its windows. ValueError as ``EpochOrder``, and where
    there are fewer windows than in a unit.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[SessionPart]],
        units: SessionUnits,
        blocks: int,
        seed: int,
    ) -> None:
        super().__init__([sum(part.windows for part in record) for record in parts], blocks, seed)
        total = int(self.windows_per_record.sum())
        if total < units.windows:
            raise ValueError(
                f"data.session_windows is {units.windows}, but data.train holds "
                f"{counted(total, 'window')}; set data.session_windows to less, or give more data"
            )
        self.windows = total - total % units.windows
        self.blocks = _enough_blocks(self.windows_per_record, units.windows, blocks)
        self._parts = parts
        self._units = units
        self._group = lru_cache(maxsize=4)(self._make_group)

    def _group_starts(self, epoch: int) -> np.ndarray:
        ends = self._group_ends(epoch)
        return np.concatenate([[0], ends - ends % self._units.windows])

    def _carried(self, epoch: int) -> np.ndarray:
        """How many windows are carried over to each group from the one before, and to the end."""
        return np.concatenate([[0], self._group_ends(epoch) % self._units.windows])

    def _group_rows(self, epoch: int, group: int) -> Rows:
        """The windows of a group, with those carried over to it, without those carried on."""
        carried = self._carried(epoch)
        own = self._group(epoch, group)
        rest = own.rest
        if carried[group]:
            before = self._group(epoch, group - 1).rest
            rest = join([before.take(slice(len(before.rows) - carried[group], None)), rest])
        rest = rest.take(slice(len(rest.rows) - carried[group + 1]))
        windows = self._units.windows
        mixed = len(rest.rows) // windows
        # A unit of several sessions gets the round of a random unit of one session.
        key = (self._seed, epoch, group + 1)
        rounds = np.concatenate([own.rounds, _draw(own.rounds, mixed, *key, 1)])
        order = np.lexsort((random_bits(len(rounds), *key, 2), rounds))
        numbers = (order[:, None] * windows + np.arange(windows)).ravel()
        return join([own.full, rest]).take(numbers)

    def _make_group(self, epoch: int, group: int) -> _Group:
        """A group's own windows: in units of one session, and the rest."""
        carried, windows = self._carried(epoch), self._units.windows
        full, rounds, rest = [], [], []
        for record in self._group_records(epoch, group).tolist():
            first = 0
            for number, part in enumerate(self._parts[record], start=1):
                order = first + self._pair(part, epoch, record + 1, number)
                rows = Rows(np.full(len(order), record), order)
                count = len(order) // windows
                full.append(rows.take(slice(count * windows)))
                rounds.append(np.arange(count))
                rest.append(rows.take(slice(count * windows, None)))
                first += part.windows
        made = _Group(join(full), np.concatenate(rounds), join(rest))
        # The rest must be enough for the windows that are carried over to the next group.
        if len(made.rest.rows) < carried[group + 1] and len(made.rounds):
            at = len(made.full.rows) - windows
            rest_rows = join([made.full.take(slice(at, None)), made.rest])
            made = _Group(made.full.take(slice(at)), made.rounds[:-1], rest_rows)
        return made

    def _pair(self, part: SessionPart, *key: int) -> np.ndarray:
        """The windows of a part, ``(n,)``: shuffled pairs of near windows, then those without."""
        distances = self._units.distances(part.step_s)
        pairs, left = pair_windows(
            part.windows, distances, random_bits(part.windows + 2, self._seed, *key, 1)
        )
        order = permutation(len(pairs), self._seed, *key, 2)
        return np.concatenate([pairs[order].ravel(), left])


class _Group(NamedTuple):
    """The windows of a group. full: those in units of one session; rounds: the round of each unit.

    rest: the other windows. In round r each part gives its r-th unit.
    """

    full: Rows
    rounds: np.ndarray
    rest: Rows


def pair_windows(windows: int, distances: range, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint pairs of ``windows`` consecutive windows, ``(p, 2)``, and the windows left over.

    The distance between the two of a pair, counted in windows, is one of ``distances``. Pairs come
    in runs of one distance, which is drawn from ``bits`` (uint64, at least ``windows + 2``).
    """
    if not distances:
        return np.empty((0, 2), dtype=np.int64), np.arange(windows)
    draws = iter(bits.tolist())
    pairs: list[tuple[int, int]] = []
    left: list[int] = []
    # Where the first run begins is random too, so that every pair of near windows can be drawn.
    begin = min(next(draws) % (2 * distances[-1]), windows)
    for start, stop in ((0, begin), (begin, windows)):
        while start < stop:
            distance = min(distances[next(draws) % len(distances)], (stop - start) // 2)
            if distance < distances[0]:
                left += range(start, stop)
                break
            pairs += [(first, first + distance) for first in range(start, start + distance)]
            start += 2 * distance
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(left, dtype=np.int64)


def check_sessions(parts: Sequence[Sequence[SessionPart]], near: NearConfig) -> None:
    """ValueError where no session holds windows near in time, or none that are far in time."""
    units = SessionUnits(2, near.min_s, near.max_s)
    steps = [part.step_s for record in parts for part in record if part.step_s]
    wanted = f"objective.near wants windows {near.min_s:g} to {near.max_s:g} s apart"
    if not steps:
        raise ValueError(
            f"{wanted}, but no session in data.train has two that start at different times of one "
            "recording; build the shards again with start times (start_s) and all windows of a "
            "recording, or set objective.weights.imu_near=0 and leave data.session_windows unset"
        )
    if not any(units.distances(step_s) for step_s in steps):
        raise ValueError(
            f"{wanted}, but those of a session in data.train start {np.median(steps):g} s after "
            "one another; build them again with a shorter --hop-s, or change objective.near.min_s "
            "and max_s"
        )
    if near.global_negatives:
        return  # windows of other sessions are negatives too
    lengths_s: dict[int, list[float]] = {}
    for record in parts:
        for part in record:
            lengths_s.setdefault(part.session, []).append(part.windows * part.step_s)
    if any(len(of_session) > 1 for of_session in lengths_s.values()):
        return  # the parts of a session may be far from each other
    longest_s = max(length_s for (length_s,) in lengths_s.values())
    if longest_s <= near.exclude_s:
        raise ValueError(
            f"objective.near.exclude_s is {near.exclude_s:g}, but the longest session in "
            f"data.train lasts {longest_s:g} s, so its windows have no negative; lower it, build "
            "the shards again with --session-by person, if a person has several recordings, or set "
            "objective.near.global_negatives above 0"
        )


def describe_sessions(parts: Sequence[Sequence[SessionPart]], windows: int, batch: int) -> str:
    """A line on the sessions of the data, with what to do where they are few or short."""
    lengths: Counter[int] = Counter()
    for record in parts:
        for part in record:
            lengths[part.session] += part.windows
    counts = np.array([*lengths.values()])
    line = (
        f"batches of {counted(batch // windows, 'session')} x {counted(windows, 'window')}; "
        f"sessions: {len(counts)}, of {counted(int(np.median(counts)), 'window')} in the median"
    )
    if len(counts) < batch // windows:
        line += "; too few for a batch of different ones: set data.session_windows to more"
    short = counts[counts < windows].sum() / counts.sum()
    if short > 0.5:
        line += (
            f"; {short:.0%} of the windows are of shorter sessions, which are dealt together: set "
            "data.session_windows to less, or build the shards with --session-by person"
        )
    return line


def _enough_blocks(windows_per_record: np.ndarray, unit: int, blocks: int) -> int:
    """``blocks``, or more if needed: any group of so many records holds the windows of a unit."""
    held = np.cumsum(np.sort(windows_per_record))
    return max(blocks, int(np.searchsorted(held, unit)) + 1)


def _draw(values: np.ndarray, number: int, *key: int) -> np.ndarray:
    """``number`` of ``values``, at random; zeros where there are none."""
    if not len(values):
        return np.zeros(number, dtype=np.int64)
    return values[random_bits(number, *key) % np.uint64(len(values))]
