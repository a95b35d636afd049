"""Sessions on the data card: how many, how long, and whether they hold several activities.

Training contrasts the windows near a window in time with the rest of its session. That needs
sessions of many windows, in which people do more than one thing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from primus_scale.data.record import session_id
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import WindowMeta

FEW_WINDOWS = 30  # in a session


class SessionCounts:
    """Windows, labels and narrations of each session, counted window by window."""

    def __init__(self) -> None:
        self._windows: Counter[int] = Counter()
        self._labels: defaultdict[int, set[str]] = defaultdict(set)
        self._narrated: set[int] = set()

    def add(self, meta: WindowMeta) -> None:
        """Count one window."""
        session = session_id(meta)
        self._windows[session] += 1
        if meta.label is not None:
            self._labels[session].add(meta.label)
        if meta.texts:
            self._narrated.add(session)

    def figures(self, source: ShardSet) -> dict[str, Any]:
        """As JSON: the number of sessions, windows of the median and the shortest one, and labels.

        labelled: sessions with labels and without narrations, since narrations tell more than a
        label. one_label: those of them with one label only. Numbers of windows are from the
        indexes. Where these have no sessions, they are estimated from the windows counted.
        """
        windows = _windows_by_index(source) or self._estimated(source)
        labels = [held for session, held in self._labels.items() if session not in self._narrated]
        return {
            "count": len(windows),
            "windows": {
                "median": round(float(np.median([*windows.values()])), 1),
                "shortest": round(min(windows.values())),
            },
            "labelled": len(labels),
            "one_label": sum(len(held) == 1 for held in labels),
        }

    def _estimated(self, source: ShardSet) -> dict[int, float]:
        scale = source.windows / self._windows.total()
        return {session: scale * count for session, count in self._windows.items()}


def _windows_by_index(source: ShardSet) -> Counter[int] | None:
    """Windows of each session according to the indexes; None where an index has no sessions."""
    windows: Counter[int] = Counter()
    for index in source.indexes:
        for shard in index.shards:
            for part in (part for record in shard.sessions for part in record):
                windows[part.session] += part.windows
    return windows if windows.total() == source.windows else None


def session_attention(sessions: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what is wrong with the sessions, for ``attention``; sessions: ``figures``."""
    one, labelled = sessions["one_label"], sessions["labelled"]
    if 2 * one > labelled:
        yield (
            f"{one:,} of {labelled:,} sessions with labels hold one label only. Contrast between "
            "windows near in time then learns who is recorded, not what they do: build with "
            "--session-by person, so that a session holds all recordings of a person."
        )
    median = sessions["windows"]["median"]
    if median < FEW_WINDOWS:
        yield (
            f"Half of the {sessions['count']:,} sessions have at most {median:g} windows, fewer "
            f"than the {FEW_WINDOWS} that contrast between windows near in time should choose "
            "from: "
            "build with a smaller --hop-s or, where recordings are parts of one wearing, with "
            "--session-by person."
        )
