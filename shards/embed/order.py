"""The orders of packing: which windows make a record, and how they follow each other in it.

Window shards lie in the order of the recordings, so that devices of one moment stand side by side
and their pictures are embedded once. Packed shards lie in one of these orders, which are pure
functions of the windows, the size of a block and a seed:

``sessions``  A record consists of parts of sessions, each in order of time, so that the windows of
              a batch can be chosen by session. Which parts stand together is drawn from the seed.
``shuffled``  Every window has a place drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

CHUNK = 8  # windows that follow each other in a session and stay together


class WindowColumns(NamedTuple):
    """Windows of a source, in its order: uid, session and recording int64, start_s float64.

    Each ``(n,)``; session and recording are ids, as in ``Block``.
    """

    uid: np.ndarray
    session: np.ndarray
    recording: np.ndarray
    start_s: np.ndarray


def order_by_sessions(windows: WindowColumns, block: int, seed: int) -> list[np.ndarray]:
    """The windows of each record: parts of sessions, as many as fit into ``block`` windows.

    A session of more than ``block`` windows is dealt into parts, so that each of them covers the
    whole of it. A part is not divided. Parts are taken in an order drawn from ``seed``, and each
    goes into the first record that has room for it.
    """
    by_session = np.lexsort((windows.start_s, windows.recording, windows.session))
    session = windows.session[by_session]
    ends = np.flatnonzero(session[1:] != session[:-1]) + 1
    parts = [part for one in np.split(by_session, ends) for part in _deal(one, block)]
    return _first_fit([parts[number] for number in _permutation(len(parts), seed)], block)


def order_shuffled(windows: WindowColumns, block: int, seed: int) -> list[np.ndarray]:
    """The windows of each record: ``block`` of them, in an order drawn from ``seed``."""
    order = _permutation(len(windows.uid), seed)
    return [order[start : start + block] for start in range(0, len(order), block)]


ORDERS: dict[str, Callable[[WindowColumns, int, int], list[np.ndarray]]] = {
    "sessions": order_by_sessions,
    "shuffled": order_shuffled,
}


def _deal(session: np.ndarray, block: int) -> list[np.ndarray]:
    """Parts of at most ``block`` windows of a session, whose windows are in order of time.

    As few as possible where ``CHUNK`` divides ``block``. Chunks are dealt to the parts in turn.
    """
    if len(session) <= block:
        return [session]
    chunk = min(CHUNK, block)
    chunks = [session[start : start + chunk] for start in range(0, len(session), chunk)]
    parts = -(-len(chunks) // (block // chunk))
    return [np.concatenate(chunks[number::parts]) for number in range(parts)]


def _first_fit(parts: Sequence[np.ndarray], block: int) -> list[np.ndarray]:
    """Records of at most ``block`` windows, each of whole parts."""
    records: list[list[np.ndarray]] = []
    room = np.full(len(parts), block)  # of each record, those that are not begun included
    least = min(map(len, parts))
    first = 0  # of the records that have room for the shortest part
    for part in parts:
        number = first + int(np.argmax(room[first : len(records) + 1] >= len(part)))
        if number == len(records):
            records.append([])
        records[number].append(part)
        room[number] -= len(part)
        while first < len(records) and room[first] < least:
            first += 1
    return [np.concatenate(record) for record in records]


def _permutation(length: int, seed: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).permutation(length)
