"""Batches of S sessions x W windows: units, pairs near in time, epochs; a pure function."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from primus_scale.config import NearConfig
from primus_scale.data.epoch_order import random_bits
from primus_scale.data.index import SessionPart
from primus_scale.data.schedule import Schedule
from primus_scale.data.session_order import (
    SessionOrder,
    SessionUnits,
    check_sessions,
    describe_sessions,
    pair_windows,
)

UNITS = SessionUnits(windows=8, min_s=1.0, max_s=5.0)


def folder(*records: list[int], step_s: float = 1.24) -> list[list[SessionPart]]:
    """Records of parts of so many windows, each part of a session of its own."""
    numbers = iter(range(1000))
    return [[SessionPart(next(numbers), count, step_s) for count in record] for record in records]


FOLDERS = {
    "whole units": folder(*[[32]] * 12),
    "uneven": folder([30], [17, 9], [45], [8], [3, 4, 2], [61], [23], [64], [7], [5, 5, 5], [37]),
    "short": folder(*[[4] * 8] * 9),
    "one long": folder([400]),
    "small records": folder(*[[3]] * 40),
}


def session_of(parts, rows):
    """Number of the session of each window."""
    sessions = [
        np.repeat([p.session for p in record], [p.windows for p in record]) for record in parts
    ]
    return [sessions[record][row] for record, row in zip(rows.records, rows.rows, strict=True)]


def pairs_of(rows):
    return list(zip(rows.records.tolist(), rows.rows.tolist(), strict=True))


@pytest.mark.parametrize("parts", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("blocks", [1, 3, 100])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_holds_every_window_once_but_less_than_a_unit(parts, blocks, epoch):
    order = SessionOrder(parts, UNITS, blocks, seed=3)
    total = int(order.windows_per_record.sum())
    assert order.windows == total - total % UNITS.windows
    drawn = pairs_of(order.rows(epoch, 0, order.windows))
    everything = {(r, w) for r, n in enumerate(order.windows_per_record) for w in range(n)}
    assert len(drawn) == len(set(drawn)) == order.windows
    assert set(drawn) <= everything


def test_what_is_left_out_changes_with_the_epoch():
    parts = FOLDERS["uneven"]
    order = SessionOrder(parts, UNITS, 3, seed=3)
    everything = {(r, w) for r, n in enumerate(order.windows_per_record) for w in range(n)}
    left = [everything - {*pairs_of(order.rows(e, 0, order.windows))} for e in range(6)]
    assert {len(each) for each in left} == {len(everything) % UNITS.windows}
    assert len(set(map(frozenset, left))) > 3


@pytest.mark.parametrize("parts", FOLDERS.values(), ids=FOLDERS)
def test_any_part_of_an_epoch_is_a_slice_of_the_whole(parts):
    whole = SessionOrder(parts, UNITS, 3, seed=5)
    everything = pairs_of(whole.rows(2, 0, whole.windows))
    for start, stop in ((0, 8), (5, 30), (16, whole.windows), (whole.windows - 3, whole.windows)):
        fresh = SessionOrder(parts, UNITS, 3, seed=5)
        assert pairs_of(fresh.rows(2, start, stop)) == everything[start:stop]


@pytest.mark.parametrize("sessions", [2, 4])
def test_batches_are_sessions_times_windows(sessions):
    """Whole units: every batch holds S sessions, W windows of each, over epochs."""
    parts = FOLDERS["whole units"]
    schedule = Schedule(SessionOrder(parts, UNITS, blocks=4, seed=1), sessions * UNITS.windows)
    steps = 3 * 12 * 32 // (sessions * UNITS.windows)
    seen: Counter[tuple[int, int]] = Counter()
    together = set()
    for step in range(steps):
        rows = schedule.batch_rows(step)
        seen.update(pairs_of(rows))
        counts = Counter(session_of(parts, rows))
        assert set(counts.values()) == {UNITS.windows} and len(counts) == sessions
        together.add(frozenset(counts))
    assert set(seen.values()) == {3}  # every window once in each of the three epochs
    assert len(together) > 6  # of the sessions of a group: each epoch has three, of other sessions


def test_units_of_one_session_come_first_from_every_part_of_a_group():
    parts = folder([32], [16], [24], [8])
    order = SessionOrder(parts, UNITS, blocks=4, seed=0)
    sessions = session_of(parts, order.rows(0, 0, order.windows))
    units = [set(sessions[start : start + 8]) for start in range(0, len(sessions), 8)]
    assert all(len(unit) == 1 for unit in units)
    rounds = [*map(min, units)]
    assert set(rounds[:4]) == {0, 1, 2, 3} and set(rounds[4:7]) == {0, 1, 2}
    assert set(rounds[7:9]) == {0, 2} and rounds[9:] == [0]


def test_windows_of_a_unit_have_near_ones_and_cover_the_session():
    parts = folder([200], [200], [200])
    order = SessionOrder(parts, SessionUnits(40, 1.0, 5.0), blocks=3, seed=2)
    rows = order.rows(0, 0, order.windows)
    spans = []
    for start in range(0, order.windows, 40):
        unit = np.sort(rows.rows[start : start + 40])
        apart = np.abs(unit[:, None] - unit)
        near = ((apart >= 1) & (apart <= 4)).any(axis=1)
        assert near.sum() >= 36  # all but those that the ends of a part left over
        spans.append(unit[-1] - unit[0])
    assert min(spans) > 100


def test_distances_follow_the_step_of_the_part():
    assert UNITS.distances(1.24) == range(1, 5)
    assert UNITS.distances(0.5) == range(2, 11)
    assert UNITS.distances(5.0) == range(1, 2)
    assert not UNITS.distances(5.1)
    assert not UNITS.distances(0.0)


@pytest.mark.parametrize("windows", [0, 1, 2, 3, 7, 50, 256])
@pytest.mark.parametrize("distances", [range(1, 5), range(2, 4), range(1, 2), range(3, 30)])
def test_pairs_are_disjoint_and_near(windows, distances):
    for seed in range(20):
        pairs, left = pair_windows(windows, distances, random_bits(windows + 2, seed))
        assert sorted([*pairs.ravel().tolist(), *left.tolist()]) == list(range(windows))
        assert set((pairs[:, 1] - pairs[:, 0]).tolist()) <= set(distances)
        if windows > 2 * distances[-1]:
            assert len(left) < 4 * distances[-1]


def test_every_pair_of_near_windows_is_drawn_at_some_time():
    drawn = Counter()
    for seed in range(400):
        drawn.update(map(tuple, pair_windows(12, range(1, 4), random_bits(14, seed))[0].tolist()))
    assert set(drawn) == {(i, j) for i in range(12) for j in range(12) if 1 <= j - i <= 3}


def test_records_in_use_hold_a_unit():
    order = SessionOrder(FOLDERS["small records"], UNITS, blocks=1, seed=0)
    assert order.blocks == 3  # three records of three windows hold eight


def test_few_windows_are_refused():
    with pytest.raises(ValueError, match=r"data\.session_windows is 8, but data\.train holds 7"):
        SessionOrder(folder([7]), UNITS, 1, seed=0)


def test_data_without_windows_near_or_far_in_time_are_refused():
    near = NearConfig(min_s=1.0, max_s=5.0, exclude_s=10.0)
    check_sessions(folder([4, 9]), near)
    with pytest.raises(ValueError, match=r"start 6 s after one another; .* a shorter --hop-s"):
        check_sessions(folder([30], step_s=6.0), near)
    with pytest.raises(ValueError, match=r"no session .* at different times .* start times"):
        check_sessions(folder([30], step_s=0.0), near)
    with pytest.raises(ValueError, match=r"session in data\.train lasts 9.92 s"):
        check_sessions(folder([4, 8]), near)
    check_sessions(folder([4, 8]), near.model_copy(update={"global_negatives": 0.3}))
    of_one_session = [[SessionPart(0, 8, 1.24)], [SessionPart(0, 8, 1.24)]]
    check_sessions(of_one_session, near)  # its parts may be far from each other


def test_one_session_will_do_and_is_told():
    near = NearConfig(min_s=1.0, max_s=5.0, exclude_s=10.0)
    check_sessions(FOLDERS["one long"], near)
    line = describe_sessions(FOLDERS["one long"], 8, 16)
    assert "sessions: 1, of 400 windows" in line and "too few for a batch" in line


def test_no_window_is_near_to_itself():
    """However much windows overlap: the least distance is one window."""
    assert SessionUnits(8, 1e-9, 5.0).distances(0.02) == range(1, 251)
    with pytest.raises(ValueError, match="min_s"):
        NearConfig(min_s=0.0)


def test_sessions_are_described_with_what_to_do():
    assert describe_sessions(folder([32], [16, 16]), 8, 16) == (
        "batches of 2 sessions x 8 windows; sessions: 3, of 16 windows in the median"
    )
    line = describe_sessions(folder([32, 6], [7, 7, 7]), 8, 64)
    assert "too few for a batch of different ones: set data.session_windows to more" in line
    assert "46% of the windows" not in line
    assert "68% of the windows are of shorter sessions" in describe_sessions(
        folder([10], [7, 7, 7]), 8, 16
    )
