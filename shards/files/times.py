"""Times in tables, as text or as Parquet's own types, read as nanoseconds of one clock.

reader = TimeReader("walk.csv: column time")
ns = reader.read(cells)   # int64 (n,), NOT_A_TIME where a cell is empty
reader.clock              # Clock.LOCAL: dates without a time zone

Read are ``2022-01-27 12:21:52.02`` (ISO 8601, also with T, with / in the date, with a comma before
the fraction), with a zone (``Z``, ``+01:00``, ``+0100``, ``UTC``, a name in brackets after them) or
without; times of day (``12:21:52.02``); and any other spelling in a given format. With a zone they
are counted in UTC, so that summer time changes nothing; without one all days have 24 hours.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from primus_scale.storage.names import quoted
from shards.files.text_tables import NULLS

NOT_A_TIME = np.iinfo(np.int64).min
_SECOND = 10**9
_DAY = 86_400 * _SECOND
_ISO = re.compile(
    r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]+\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?"
    r"(?P<zone> ?(Z|UTC|GMT|[+-]\d{2}:?(\d{2})?))?( ?\[[^\]]*\])?)?",
    re.I,
)
_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9})\d*)?)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What Arrow's parser wants, in this order.
_SPELLINGS = (
    (r" ?\[[^\]]*\]$", ""),
    (r"^(\d{4})/(\d{1,2})/", r"\1-\2-"),
    (r"^(\d{4})-(\d)-", r"\1-0\2-"),
    (r"^(\d{4}-\d{2})-(\d)([ T]|$)", r"\1-0\2\3"),
    (r"[ Tt]+(\d:)", r" 0\1"),
    (r"[ Tt]+(\d\d:)", r" \1"),
    (r",(\d)", r".\1"),
    (r"(\.\d{9})\d+", r"\1"),
    (r"(?i) ?(z|utc|gmt)$", "Z"),
    (r" ([+-]\d\d)", r"\1"),
)


class Clock(Enum):
    """The clock of times; times of different clocks cannot be compared."""

    UTC = "dates with a time zone"
    LOCAL = "dates without a time zone"
    DAY = "times of day"
    COUNT = "numbers"


class TimeReader:
    """Reads the cells of a column of times, one piece after the other, in file order.

    where: file and column, for messages. form: of ``datetime.strptime``, instead of ISO 8601.
    zone: of dates that have none, such as ``+02:00`` or ``Europe/Berlin``. ``clock`` is known after
    the first cell that is not empty. A time of day that comes after one more than 12 hours
    later is of the next day. ValueError naming row and cell where one is no time, or of another
    clock.
    """

    def __init__(self, where: str, *, form: str | None = None, zone: str | None = None) -> None:
        self.clock: Clock | None = None
        self._where = where
        self._form = form
        self._zone = zone
        self._rows = 0
        self._days = 0  # midnights that times of day have passed
        self._last: int | None = None

    def read(self, cells: Any) -> np.ndarray:
        """Nanoseconds of the clock, int64 ``(n,)``: from 1970, from midnight, or from zero."""
        if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
            ns = self._read_texts(cells)
        else:
            ns = self._read_typed(cells)
        self._rows += len(ns)
        return ns

    def _read_texts(self, cells: Any) -> np.ndarray:
        texts = pc.utf8_trim_whitespace(cells)
        texts = pc.if_else(pc.is_in(texts, pa.array([*NULLS])), pa.scalar(None, pa.string()), texts)
        if texts.null_count == len(texts):
            return np.full(len(texts), NOT_A_TIME)
        if self._form is not None:
            return self._read_format(texts.to_pylist())
        first = texts.drop_null()[0].as_py()
        if _OF_DAY.fullmatch(first):
            self._settle(Clock.DAY)
            return self._read_times_of_day(texts.to_pylist())
        match = _ISO.fullmatch(first)
        if match is None:
            raise self._fault(texts, _ISO)
        zoned = match["zone"] is not None
        kind = pa.timestamp("ns", "UTC" if zoned else None)
        try:
            return self._from_timestamps(texts.cast(kind), zoned)
        except pa.ArrowInvalid:
            pass  # another spelling, or a fault
        for pattern, replacement in _SPELLINGS:
            texts = pc.replace_substring_regex(texts, pattern, replacement)
        try:
            times = texts.cast(kind)
        except pa.ArrowInvalid:
            raise self._fault(cells, _ISO) from None
        return self._from_timestamps(times, zoned)

    def _read_typed(self, cells: Any) -> np.ndarray:
        kind = cells.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            zoned = pa.types.is_timestamp(kind) and kind.tz is not None
            try:
                return self._from_timestamps(
                    cells.cast(pa.timestamp("ns", kind.tz if zoned else None)), zoned
                )
            except pa.ArrowInvalid as error:
                raise ValueError(f"{self._where}: {error}; write years from 1678 to 2261") from None
        if pa.types.is_time(kind):
            self._settle(Clock.DAY)
            return self._over_midnight(_integers(cells.cast(pa.time64("ns"))))
        if pa.types.is_duration(kind):
            self._settle(Clock.COUNT)
            return _integers(cells.cast(pa.duration("ns")))
        raise ValueError(f"{self._where} is of type {kind}, which is no time; store times there")

    def _from_timestamps(self, times: Any, zoned: bool) -> np.ndarray:
        """Nanoseconds of timestamps; those without a zone are put into the given one."""
        if self._zone is not None and not zoned:
            times = pc.assume_timezone(
                times, self._zone, ambiguous="earliest", nonexistent="earliest"
            )
        self._settle(Clock.UTC if zoned or self._zone is not None else Clock.LOCAL)
        return _integers(times)

    def _read_format(self, texts: list[str | None]) -> np.ndarray:
        ns = np.full(len(texts), NOT_A_TIME)
        assert self._form is not None
        dated = "%d" in self._form or "%x" in self._form or "%j" in self._form
        for row, text in enumerate(texts):
            if text is None:
                continue
            try:
                time = datetime.strptime(text, self._form)
            except ValueError:
                raise ValueError(
                    f"{self._where}: row {self._rows + row + 1} holds {quoted(text)}, which is no "
                    f"time of the format {self._form}; correct the format or the cell"
                ) from None
            self._settle((Clock.UTC if time.tzinfo else Clock.LOCAL) if dated else Clock.DAY)
            midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
            start = (_EPOCH if time.tzinfo else _EPOCH.replace(tzinfo=None)) if dated else midnight
            ns[row] = (time - start) // timedelta(microseconds=1) * 1000
        if self.clock is Clock.DAY:
            return self._over_midnight(ns)
        if self._zone is not None and self.clock is Clock.LOCAL:
            self.clock = None
            known = ns != NOT_A_TIME
            return self._from_timestamps(pa.array(ns, pa.timestamp("ns"), mask=~known), zoned=False)
        return ns

    def _read_times_of_day(self, texts: list[str | None]) -> np.ndarray:
        ns = np.full(len(texts), NOT_A_TIME)
        for row, text in enumerate(texts):
            if text is None:
                continue
            match = _OF_DAY.fullmatch(text)
            if match is None:
                raise self._fault(texts, _OF_DAY)
            hours, minutes, seconds, fraction = (part or "0" for part in match.groups())
            whole = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
            ns[row] = whole * _SECOND + int(fraction.ljust(9, "0"))
        return self._over_midnight(ns)

    def _over_midnight(self, ns: np.ndarray) -> np.ndarray:
        """Times of day that go on after midnight, and before it where rows are out of order."""
        known = np.flatnonzero(ns != NOT_A_TIME)
        if not len(known):
            return ns
        steps = np.diff(ns[known], prepend=ns[known[0]] if self._last is None else self._last)
        days = self._days + np.cumsum((steps < -_DAY // 2).astype(int) - (steps > _DAY // 2))
        self._last, self._days = int(ns[known[-1]]), int(days[-1])
        ns = ns.copy()
        ns[known] += days * _DAY
        return ns

    def _settle(self, clock: Clock) -> None:
        """ValueError where the column has times of another clock as well."""
        if self.clock not in (None, clock):
            assert self.clock is not None
            raise ValueError(
                f"{self._where}: {self.clock.value} down to row {self._rows} or so, then "
                f"{clock.value}; write one kind"
            )
        self.clock = clock

    def _fault(self, cells: Any, kind: re.Pattern[str]) -> ValueError:
        """Names the first cell that is not of a kind."""
        texts = cells if isinstance(cells, list) else cells.to_pylist()
        zones = set()
        for row, text in enumerate(texts):
            text = (text or "").strip()
            match = kind.fullmatch(text)
            if text in NULLS or (match and kind is _OF_DAY):
                continue
            if match:
                zones.add(match["zone"] is not None)
                if len(zones) < 2 and _exists(text):
                    continue
            return ValueError(
                f"{self._where}: row {self._rows + row + 1} holds {quoted(text)}, which is no time "
                "like those before it, or like 2022-01-27 12:21:52.02; correct it, or say how "
                "times are written with format: '%d.%m.%Y %H:%M:%S.%f' or the like"
            )
        return ValueError(f"{self._where} holds what is no time; correct it")


def _exists(text: str) -> bool:
    """Whether there is such a day and time, in the years that nanoseconds reach."""
    day = re.match(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", text)
    clock = re.search(r"[ T](\d{1,2}):(\d{2})(?::(\d{2}))?", text, re.I)
    assert day is not None
    numbers = [int(part or 0) for match in (day, clock) if match for part in match.groups()]
    try:
        datetime(*numbers)  # type: ignore[arg-type]
    except ValueError:
        return False
    return 1678 <= numbers[0] <= 2261


def looks_like_time(text: str) -> bool:
    """Whether a cell holds a date of ISO 8601 or a time of day, rather than a number."""
    return bool(_ISO.fullmatch(text.strip()) or _OF_DAY.fullmatch(text.strip()))


def _integers(times: Any) -> np.ndarray:
    return times.cast(pa.int64()).fill_null(NOT_A_TIME).to_numpy(zero_copy_only=False)
