"""The orders of packing: every window once; shuffled ones come apart, sessions stay together."""

import numpy as np
import pytest

from shards.embed.order import CHUNK, WindowColumns, order_by_sessions, order_shuffled


def make_columns(lengths, *, shuffle_seed=0):
    """Sessions of so many windows, each in two recordings of one hop, in any order."""
    draws = np.random.default_rng(shuffle_seed)
    session = np.repeat(np.arange(len(lengths)) * 7 - 20, lengths)
    of_session = np.concatenate([np.arange(length) for length in lengths])
    second = of_session >= np.repeat(np.array(lengths) // 2, lengths)
    recording = session * 2 + second
    start_s = 1.25 * of_session
    columns = WindowColumns(np.arange(len(session)) + 1000, session, recording, start_s)
    order = draws.permutation(len(session))
    return WindowColumns(*(column[order] for column in columns))


SESSIONS = [300, 1, 64, 65, 128, 129, 7, 7, 7, 40, 1000, 33, 20]


@pytest.mark.parametrize("order", [order_by_sessions, order_shuffled])
@pytest.mark.parametrize("block", [1, 5, 12, 64, 256, 5000])
def test_every_window_once_in_records_of_at_most_a_block(order, block) -> None:
    columns = make_columns(SESSIONS)
    records = order(columns, block, 1)
    assert sorted(np.concatenate(records).tolist()) == list(range(sum(SESSIONS)))
    assert all(1 <= len(record) <= block for record in records)


@pytest.mark.parametrize("order", [order_by_sessions, order_shuffled])
def test_an_order_is_drawn_from_the_seed(order) -> None:
    columns = make_columns(SESSIONS)
    first, again, other = (np.concatenate(order(columns, 64, seed)) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_sessions_are_packed_alike_in_whatever_order_the_windows_lie() -> None:
    orders = []
    for seed in (0, 1):
        columns = make_columns(SESSIONS, shuffle_seed=seed)
        orders.append([columns.uid[r].tolist() for r in order_by_sessions(columns, 64, 1)])
    assert orders[0] == orders[1]


def parts_of(columns, record):
    """The windows of each session in a record, in its order."""
    ends = np.flatnonzero(np.diff(columns.session[record])) + 1
    return np.split(record, ends)


def test_a_record_has_parts_of_sessions_in_order_of_time() -> None:
    columns = make_columns(SESSIONS)
    parts: dict[int, list[np.ndarray]] = {}
    for record in order_by_sessions(columns, 64, 3):
        in_record = [int(columns.session[part[0]]) for part in parts_of(columns, record)]
        assert len(set(in_record)) == len(in_record), "no session twice in a record"
        for part in parts_of(columns, record):
            parts.setdefault(int(columns.session[part[0]]), []).append(part)
            times = list(zip(columns.recording[part], columns.start_s[part], strict=True))
            assert times == sorted(times)
    for length, of_session in zip(SESSIONS, [parts[n * 7 - 20] for n in range(13)], strict=True):
        assert len(of_session) == -(-length // 64), "as few parts as possible"
        sizes = [len(part) for part in of_session]
        assert max(sizes) - min(sizes) <= CHUNK


def test_each_part_covers_its_session_and_keeps_neighbours_in_time_together() -> None:
    columns = make_columns([1000])
    records = order_by_sessions(columns, 256, 0)
    assert len(records) == 4
    for record in records:
        number = columns.start_s[record] / 1.25  # of the window in its session
        assert number.min() < 4 * CHUNK and number.max() >= 1000 - 4 * CHUNK
        assert np.diff(number).max() <= 1 + 3 * CHUNK
        assert np.mean(np.diff(number) == 1) > 0.85


def test_a_part_goes_into_the_first_record_with_room() -> None:
    """What is left of a record is too little for the first part of any later one."""
    draws = np.random.default_rng(5)
    columns = make_columns(draws.integers(1, 50, 200).tolist())
    records = order_by_sessions(columns, 64, 9)
    firsts = [len(parts_of(columns, record)[0]) for record in records]
    for number, record in enumerate(records):
        assert all(64 - len(record) < first for first in firsts[number + 1 :])


def test_shuffled_neighbours_come_apart_and_every_record_holds_all_alike() -> None:
    columns = make_columns([500] * 4)
    by_time = np.lexsort((columns.start_s, columns.session))
    place = np.empty(2000, dtype=int)
    place[by_time] = np.arange(2000)
    records = order_shuffled(columns, 200, 3)
    order = place[np.concatenate(records)]
    # Of 1999 steps of a random order of 2000, 2 are expected to be of one place (Poisson).
    assert (np.abs(np.diff(order)) == 1).sum() < 10
    for record in records:
        counts = np.bincount(place[record] // 500, minlength=4)
        # 50 expected, deviation 5.8.
        assert counts.min() > 50 - 5 * 5.8
