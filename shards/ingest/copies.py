"""Recordings that hold the same windows: a file that lies there twice, or a device named twice.

lines = find_copies([("p1", [hash, ...]), ("p1_copy", [hash, ...])])

They are used, and told: as two people they would be on both sides of a split, and in pretraining
negatives of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

MOST_LINES = 1000
MOST_OWNERS = 100  # of one window; more are not compared pair by pair


def find_copies(recordings: Sequence[tuple[str, Sequence[int]]]) -> tuple[str, ...]:
    """Lines on recordings that have windows in common, those with most of them first.

    recordings: name, and a hash of the samples of each window (``sample_hash``).
    """
    if not recordings:
        return ()
    hashes = np.concatenate([np.array(own, np.int64) for _, own in recordings])
    owner = np.repeat(np.arange(len(recordings)), [len(own) for _, own in recordings])
    order = np.argsort(hashes, kind="stable")
    hashes, owner = hashes[order], owner[order]
    edges = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1], [True]]))
    pairs: Counter[tuple[int, int]] = Counter()
    for group in np.flatnonzero(np.diff(edges) > 1).tolist():
        owners = sorted(owner[edges[group] : edges[group + 1]].tolist())
        pairs.update(set(combinations(owners[:MOST_OWNERS], 2)))
    return tuple(_line(recordings, *pair, count) for pair, count in pairs.most_common(MOST_LINES))


def _line(
    recordings: Sequence[tuple[str, Sequence[int]]], first: int, second: int, count: int
) -> str:
    if first == second:
        return (
            f"{recordings[first][0]} holds equal windows, {count} of them twice; do two of its "
            "devices name the same file?"
        )
    (one, left), (other, right) = recordings[first], recordings[second]
    return (
        f"{one} and {other} hold equal windows: {count} of {len(left)} and of {len(right)}; if one "
        "is a copy of the other, take it away and build again"
    )
