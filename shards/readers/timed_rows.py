"""Rows of the files that a ``recording.yaml`` describes, with their times on the recording's clock.

start = read_first_time(source, path, sensor, where)  # its first time, and on which clock
origin = common_origin([("w.csv", start), ...])        # of dates and times of day, in ns
for time_s, piece in timed_rows(source, path, sensor, where, start, origin, columns=("ax",)): ...

Times that are numbers are seconds once their unit is taken in. Dates and times of day are counted
from the earliest first row of the recording's files, so that 0 s is where the recording begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from primus_scale.storage.names import quoted
from shards.files.source import Source
from shards.files.tables import read_table
from shards.files.text_tables import NULLS, is_number
from shards.files.times import NOT_A_TIME, Clock, TimeReader, looks_like_time
from shards.readers.form_advice import advise
from shards.readers.table_yaml import RowsFile

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
UNIX_S = 1e8  # numbers beyond it are counted from 1970, not from the recording's beginning


class FirstTime(NamedTuple):
    """The first time of a file, in nanoseconds (numbers: in seconds), and the clock of its times.

    typed: times are not plain numbers, so that ``TimeReader`` reads them.
    """

    clock: Clock
    first: float = 0.0
    typed: bool = False


class ClockOrigin(NamedTuple):
    """The recording's 0 s on the clock of its files: dates or times of day (None: numbers)."""

    clock: Clock | None
    ns: int = 0

    def date(self) -> str:
        """Date and time of the origin in ISO 8601; empty where no date is known."""
        if self.clock not in (Clock.UTC, Clock.LOCAL):
            return ""
        moment = self._moment()
        return (moment if self.clock is Clock.UTC else moment.replace(tzinfo=None)).isoformat()

    def _moment(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.ns // 1000)

    def text(self) -> str:
        """The origin as a date or a time of day."""
        moment = self._moment()
        text = moment.strftime("%H:%M:%S.%f" if self.clock is Clock.DAY else "%Y-%m-%d %H:%M:%S.%f")
        return text.rstrip("0").rstrip(".") + (" UTC" if self.clock is Clock.UTC else "")


@contextmanager
def prefix_errors(where: str) -> Iterator[None]:
    """Put ``where``, the place that names the file, before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


@contextmanager
def prefix_and_advise(source: Source, path: str, file: RowsFile, where: str) -> Iterator[None]:
    """As ``prefix_errors``; for a text table also advice on how to describe its form."""
    try:
        yield
    except ValueError as error:
        advice = advise(source, path, file) if file.is_text else ""
        raise ValueError(f"{where}: {error}{advice}") from None


def read_first_time(source: Source, path: str, file: RowsFile, where: str) -> FirstTime:
    """The first time of a table, from its first rows."""
    if file.time is None or file.is_array:
        return FirstTime(Clock.COUNT, file.start_s or 0.0)
    with prefix_and_advise(source, path, file, where):
        reader = _reader(source, path, file)
        for piece in _read(source, path, file, raw_columns=file.time.columns):
            cells = _joined(piece, file)
            if pa.types.is_string(cells.type) and _first_text(cells) is None:
                continue
            if _are_numbers(cells, file):
                return FirstTime(Clock.COUNT, _first_number(cells, file))
            ns = reader.read(cells)
            known = ns[ns != NOT_A_TIME]
            if len(known):
                assert reader.clock is not None
                counted = reader.clock is Clock.COUNT
                return FirstTime(reader.clock, 0.0 if counted else int(known[0]), typed=True)
    return FirstTime(Clock.COUNT)


def common_origin(starts: Iterable[tuple[str, FirstTime]]) -> ClockOrigin:
    """The earliest first time; ValueError where files are on clocks that cannot be compared.

    starts: with the names of their files.
    """
    starts = list(starts)
    dated = [(name, start) for name, start in starts if start.clock is not Clock.COUNT]
    if not dated:
        return ClockOrigin(None)
    (name, one), *others = dated
    for other_name, other in others:
        if other.clock is not one.clock:
            raise ValueError(
                f"{name} has {one.clock.value}, but {other_name} {other.clock.value}, which cannot "
                "be put on one clock; give the zone of dates without one, such as time: {zone: "
                "'+01:00'}"
            )
    origin = ClockOrigin(one.clock, int(min(start.first for _, start in dated)))
    for other_name, other in starts:
        if other.clock is Clock.COUNT and abs(other.first) > UNIX_S:
            raise ValueError(
                f"{name} has {one.clock.value}, which are counted from the first row, but "
                f"{other_name} has numbers from {other.first:.0f} s on; put these on the same "
                f"clock with time.offset_s ({-origin.ns / 1e9:.3f}, if they are Unix times)"
            )
    return origin


def timed_rows(
    source: Source,
    path: str,
    file: RowsFile,
    where: str,
    start: FirstTime,
    origin: ClockOrigin,
    *,
    columns: Sequence[str] = (),
    text_columns: Sequence[str] = (),
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Times in seconds ``(n,)`` and the columns of a table, in pieces.

    ValueError naming ``where`` (description and field), the file, row or line, and the next step.
    """
    time = file.time
    raw = time.columns if time is not None and start.typed else ()
    wanted = [*columns, *(time.columns if time is not None and not start.typed else ())]
    reader = _reader(source, path, file)
    began = 0 if start.clock is Clock.COUNT else origin.ns
    row = 0
    with prefix_and_advise(source, path, file, where):
        for piece in _read(
            source, path, file, columns=wanted, text_columns=text_columns, raw_columns=raw
        ):
            rows = len(next(iter(piece.values())))
            if time is None:
                assert file.rate_hz is not None
                time_s = (file.start_s or 0.0) + (row + np.arange(rows)) / file.rate_hz
            elif start.typed:
                ns = reader.read(_joined(piece, file))
                time_s = np.where(ns == NOT_A_TIME, np.nan, (ns - began) * 1e-9) + time.offset_s
            else:
                time_s = piece[time.columns[0]] * SECONDS[time.unit] + time.offset_s
            row += rows
            yield time_s, piece


def array_times(file: RowsFile, column: np.ndarray | None, row: int, rows: int) -> np.ndarray:
    """Seconds of ``rows`` rows of an npy file, the first of which is ``row``."""
    if file.time is None or column is None:
        assert file.rate_hz is not None
        return (file.start_s or 0.0) + (row + np.arange(rows)) / file.rate_hz
    return column.astype(np.float64) * SECONDS[file.time.unit] + file.time.offset_s


def _read(source: Source, path: str, file: RowsFile, **wanted: Any) -> Iterator[dict[str, Any]]:
    return read_table(
        source,
        path,
        **{"columns": (), **wanted},
        form=file.form() if file.is_text else None,
        header=file.header,
    )


def _reader(source: Source, path: str, file: RowsFile) -> TimeReader:
    if file.time is None:
        return TimeReader("")
    names = " and ".join(file.time.columns)
    where = f"{source.locate(path)}: column {names}"
    return TimeReader(where, form=file.time.format, zone=file.time.zone)


def _joined(piece: dict[str, Any], file: RowsFile) -> Any:
    """The cells of the column of times; of date and time of day, as one text."""
    assert file.time is not None
    columns = [piece[name] for name in file.time.columns]
    columns = [
        column.cast(pa.string()) if pa.types.is_large_string(column.type) else column
        for column in columns
    ]
    if len(columns) == 1:
        return columns[0]
    return pc.binary_join_element_wise(*(column.cast(pa.string()) for column in columns), " ")


def _first_text(cells: Any) -> str | None:
    """The first cell of texts that is not empty."""
    return next(
        (text for cell in cells if (text := (cell.as_py() or "").strip()) not in NULLS), None
    )


def _are_numbers(cells: Any, file: RowsFile) -> bool:
    """Whether times are numbers rather than dates; ValueError for numbers that have no unit."""
    assert file.time is not None
    kind = cells.type
    if pa.types.is_string(kind):
        text = _first_text(cells) or ""
        numbers = file.time.format is None and is_number(text, file.decimal)
        if not numbers and file.time.format is None and not looks_like_time(text):
            numbers = file.time.unit != "iso"  # the error comes with its line, when it is read
    else:
        numbers = (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        )
        text = str(cells[0].as_py())
    if numbers and (file.time.unit == "iso" or len(file.time.columns) > 1):
        raise ValueError(
            f"column {' and '.join(file.time.columns)} holds the number {quoted(text)}, no date; "
            "write its unit: s, ms, us or ns"
        )
    return numbers


def _first_number(cells: Any, file: RowsFile) -> float:
    """The first time in seconds, where it is a number; only an error message depends on it."""
    assert file.time is not None
    if pa.types.is_string(cells.type):
        text = (_first_text(cells) or "").replace(file.decimal, ".")
        number = float(text) if is_number(text) else 0.0
    else:
        number = float(next((cell.as_py() for cell in cells if cell.is_valid), 0.0))
    return number * SECONDS[file.time.unit] + file.time.offset_s
