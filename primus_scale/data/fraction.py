"""A share of the training windows, for studies of how much data pretraining needs.

    data = open_training(config.data)      # data.fraction of the windows at data.train

Which windows are kept is a pure function of the index. It does not depend on the seed of a run, so
runs of several seeds learn from the same windows. A smaller share is part of every larger one.

``session``  Whole sessions (one person with one mounting, worn once), in an order drawn from their
             ids: less data is less people and time. The index must have sessions.
``window``   Of each part of a session the first windows, or of each record where the index has no
             sessions: less of everybody. Windows near in time stay near.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from primus_scale.config import DataConfig
from primus_scale.data.epoch_order import random_bits
from primus_scale.data.index import SessionPart
from primus_scale.data.shard_set import ShardSet
from primus_scale.storage.patience import Patience

_SESSION_KEY, _PART_KEY = 1, 2  # of what is drawn for sessions, and for parts of them

Parts = Sequence[Sequence[SessionPart]]  # of each record


def open_training(
    config: DataConfig, patience: Patience | None = None, *, sizes: bool = True
) -> ShardSet:
    """The training shards, with the share of their windows that ``data.fraction`` asks for.

    patience: by default the configuration's. sizes: as for ``ShardSet.open``. Raises as
    ``ShardSet.open``, and ValueError where sessions are asked for that the index does not have, or
    no window is left.
    """
    data = ShardSet.open(config.train, patience or config.patience(), sizes=sizes)
    if config.fraction == 1:
        return data
    if config.fraction_by == "session":
        if not _has_sessions(data):
            raise ValueError(
                f"data.fraction={config.fraction:g} takes whole sessions, but not all of "
                "data.train is packed in the order of sessions; write it again with primus-scale "
                "shards embed --order sessions, or set data.fraction_by=window"
            )
        rows = rows_of_sessions(data.session_parts, config.fraction)
    else:
        rows = rows_of_parts(_parts(data), config.fraction)
    if not any(map(len, rows)):
        raise ValueError(
            f"data.fraction={config.fraction:g} leaves none of the {data.windows} windows of "
            "data.train; raise it"
        )
    return data.keep(rows)


def rows_of_sessions(parts: Parts, fraction: float) -> list[np.ndarray]:
    """The rows of each record that are of the first sessions with ``fraction`` of all windows.

    The last of these sessions is kept whole, so the share is ``fraction`` or a little more.
    """
    windows: Counter[int] = Counter()
    for record in parts:
        for part in record:
            windows[part.session] += part.windows
    order = sorted(windows, key=lambda session: (_draw(_SESSION_KEY, session), session))
    before = np.cumsum([windows[session] for session in order]) - [windows[s] for s in order]
    most = fraction * sum(windows.values())
    kept = {session for session, first in zip(order, before, strict=True) if first < most}
    return _rows(parts, lambda part, *_: part.windows if part.session in kept else 0)


def rows_of_parts(parts: Parts, fraction: float) -> list[np.ndarray]:
    """The first rows of each part, about ``fraction`` of them.

    Row j of n is kept where ``j + u < fraction * n``, with u between 0 and 1 drawn for each part:
    so parts of few windows give a window as often as their share asks.
    """

    def kept(part: SessionPart, record: int, number: int) -> int:
        u = _draw(_PART_KEY, record, number) / 2**64
        return max(0, min(part.windows, int(np.ceil(fraction * part.windows - u))))

    return _rows(parts, kept)


def _parts(data: ShardSet) -> Parts:
    """The parts of each record; one of all its windows where the index has no sessions."""
    if _has_sessions(data):
        return data.session_parts
    return [(SessionPart(0, int(windows), 0.0),) for windows in data.windows_per_record]


def _has_sessions(data: ShardSet) -> bool:
    return all(shard.sessions for index in data.indexes for shard in index.shards)


def _rows(parts: Parts, kept: Callable[[SessionPart, int, int], int]) -> list[np.ndarray]:
    """For each record the first ``kept(part, record, number)`` rows of each part, int64."""
    found = []
    for record, of_record in enumerate(parts):
        first, rows = 0, []
        for number, part in enumerate(of_record):
            rows.append(first + np.arange(kept(part, record, number), dtype=np.int64))
            first += part.windows
        found.append(np.concatenate(rows))
    return found


def _draw(*key: int) -> int:
    return int(random_bits(1, *key)[0])
