"""Stretches of recordings: what the audit of a split compares.

A stretch is a window of a shard folder, or a row of a CSV file. What is not known of any stretch is
None, and what is not known of one is empty.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from primus_scale.data.reader import read_ahead
from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import WindowMeta
from primus_scale.splits.csv_table import CsvTable, is_csv, read_csv
from primus_scale.storage.names import quoted

PROGRESS_S = 5.0  # between lines of progress
_FIRST_DATE_S = 1e9  # seconds since 1970, 2001-09-09; no recorder counts so many since its start
_LAST_DATE_S = 4 * _FIRST_DATE_S  # in 2096
_YEAR_S = 365.25 * 24 * 3600
_REQUIRED = ("person", "recording")
_OPTIONAL = ("start", "end", "dataset", "device", "capture", "day")


@dataclass(frozen=True)
class Spans:
    """Stretches of recordings, as columns ``(n,)``.

    name: of the folder or file. Texts: person, dataset, recording, device (of the recording),
    capture (what was recorded at once, by any number of people and devices) and day (ISO 8601).
    start_s, end_s: float64, on the recording's clock; NaN where not known. dated: whether they are
    seconds since 1970. samples: int64, a hash of the samples.
    """

    name: str
    person: np.ndarray
    dataset: np.ndarray | None = None
    recording: np.ndarray | None = None
    device: np.ndarray | None = None
    capture: np.ndarray | None = None
    day: np.ndarray | None = None
    start_s: np.ndarray | None = None
    end_s: np.ndarray | None = None
    dated: bool = False
    samples: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.person)

    @property
    def since_1970(self) -> bool | None:
        """Whether times count from 1970 and not from a start; None: both kinds, or none."""
        if self.dated:
            return True
        known = (
            [] if self.start_s is None else self.start_s[~np.isnan(self.start_s)] >= _FIRST_DATE_S
        )
        return bool(known[0]) if len(known) and (known == known[0]).all() else None


def read_spans(place: str, report: Callable[[str], None] | None = None) -> Spans:
    """The windows of the shard folder at a URL, or the rows of a CSV file (``....csv``).

    The first line of the file names the columns: ``person`` and ``recording``, possibly ``start``
    and ``end`` (seconds, or dates in ISO 8601), ``dataset``, ``device``, ``capture``, ``day``.
    report: called with lines of progress. Errors as ``read_csv``, ``ShardSet.open`` and
    ``ShardSet.read_block``; ValueError naming file and line for times that are none.
    """
    if is_csv(place):
        return _csv_spans(read_csv(place, _REQUIRED, _OPTIONAL))
    shard_set = ShardSet.open(place)
    metas: list[WindowMeta] = []
    samples: list[int] = []
    told = time.monotonic()
    for block in read_ahead(
        lambda record: shard_set.read_block(record, pictures=False), zip(range(len(shard_set)))
    ):
        metas += block.metas
        samples += map(sample_hash, block.imu)
        if report is not None and time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            report(f"{place}: read {len(metas):,} of {shard_set.windows:,} windows")
    return window_spans(place, metas, shard_set.index.window_s, np.array(samples, np.int64))


def window_spans(
    name: str, metas: Sequence[WindowMeta], window_s: float, samples: np.ndarray | None = None
) -> Spans:
    """Windows of ``window_s`` seconds; samples: ``sample_hash`` of each."""
    start_s = np.array([meta.start_s for meta in metas], dtype=np.float64)
    days = [_day_of_window(meta) for meta in metas]
    captures = [meta.capture for meta in metas]
    return Spans(
        name=name,
        person=_texts([meta.person for meta in metas]),
        dataset=_texts([meta.dataset for meta in metas]),
        recording=_texts([meta.recording for meta in metas]),
        device=_texts([meta.device for meta in metas]),
        capture=_texts(captures) if any(captures) else None,
        day=_texts(days) if any(days) else None,
        start_s=start_s,
        end_s=start_s + window_s,
        samples=samples,
    )


def sample_hash(imu: np.ndarray) -> int:
    """64-bit hash of the samples ``(C, T)`` of a window."""
    digest = hashlib.blake2b(np.ascontiguousarray(imu).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _texts(values: Sequence[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _day_of_window(meta: WindowMeta) -> str:
    """The day of a window, in the zone that its recording is dated in; empty if not known."""
    if not meta.clock_zero:
        return _day_of(meta.start_s)
    try:
        zero = datetime.fromisoformat(meta.clock_zero)
        return (zero + timedelta(seconds=meta.start_s)).date().isoformat()
    except (ValueError, OverflowError):
        return ""


def _day_of(start_s: float) -> str:
    """The day in UTC; empty where ``start_s`` does not count from 1970."""
    if not _FIRST_DATE_S <= start_s < _LAST_DATE_S:
        return ""
    return datetime.fromtimestamp(start_s, UTC).date().isoformat()


def _csv_spans(table: CsvTable) -> Spans:
    columns: dict[str, Any] = {
        name: _texts([row[name] for _, row in table.rows])
        for name in (*_REQUIRED, "dataset", "device", "capture", "day")
        if name in table.columns and any(row[name] for _, row in table.rows)
    }
    for name in ("dataset", "device"):  # a name without them is compared with none that has them
        empty = [line for line, row in table.rows if name in columns and not row[name]]
        if empty:
            raise table.fault(
                empty[0], f"column {name} is empty, and not in all lines; fill it in, or drop it"
            )
    if "day" in columns:
        columns["day"] = _texts([_date(table, line, row["day"]) for line, row in table.rows])
    if ("start" in table.columns) != ("end" in table.columns):
        raise ValueError(f"{table.place} has one of the columns start and end; give both or none")
    if "start" not in table.columns:
        return Spans(table.place, **columns)
    times = [_interval(table, line, row["start"], row["end"]) for line, row in table.rows]
    kinds = {dated for _, _, dated in times if dated is not None}
    if len(kinds) > 1:
        raise ValueError(
            f"{table.place}: start and end are dates in some lines and seconds in others; write "
            "them alike"
        )
    start_s = np.array([start for start, _, _ in times])
    if "day" not in columns:
        days = [_day_of(start) for start in start_s.tolist()]
        if any(days):
            columns["day"] = _texts(days)
    return Spans(
        table.place,
        **columns,
        start_s=start_s,
        end_s=np.array([end for _, end, _ in times]),
        dated=True in kinds,
    )


def _interval(table: CsvTable, line: int, start: str, end: str) -> tuple[float, float, bool | None]:
    """Start and end in seconds, and whether they are dates; NaN and None where both are empty."""
    if not start and not end:
        return math.nan, math.nan, None
    (first, dated), (last, also) = (_time(table, line, cell) for cell in (start, end))
    if dated != also:
        raise table.fault(line, "start and end are a date and a number; write them alike")
    if not last > first:
        raise table.fault(line, f"end {quoted(end)} is not later than start {quoted(start)}")
    return first, last, dated


def _time(table: CsvTable, line: int, cell: str) -> tuple[float, bool]:
    """Seconds, and whether the cell is a date; those without a zone count as UTC."""
    try:
        seconds = float(cell)
    except ValueError:
        try:
            moment = datetime.fromisoformat(cell)
        except ValueError:
            raise table.fault(
                line,
                f"{quoted(cell)} is no time; write seconds (12.5) or a date and time in ISO 8601 "
                "(2024-05-01T10:00:00)",
            ) from None
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), True
    if not math.isfinite(seconds):
        raise table.fault(line, f"{quoted(cell)} is no time; write seconds")
    if abs(seconds) >= _LAST_DATE_S:
        raise table.fault(
            line,
            f"{quoted(cell)} is no number of seconds, for it makes {seconds / _YEAR_S:,.0f} years; "
            "write seconds (milliseconds divided by 1,000)",
        )
    return seconds, False


def _date(table: CsvTable, line: int, cell: str) -> str:
    """A day in ISO 8601, since days are compared as texts; empty where the cell is."""
    try:
        return date.fromisoformat(cell).isoformat() if cell else ""
    except ValueError:
        raise table.fault(
            line, f"{quoted(cell)} is no day; write it in ISO 8601 (2024-05-01)"
        ) from None
