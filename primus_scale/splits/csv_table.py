"""Small CSV tables that people write by hand: who is on which side, what a split consists of."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from primus_scale.storage.folder import Folder
from primus_scale.storage.names import nearest, quoted
from primus_scale.storage.urls import parse_place

MOST_BYTES = 256 * 2**20
_SEPARATORS = ",;\t"


@dataclass(frozen=True)
class CsvTable:
    """A table that was read. rows: the number of the line, the first is 1, and cells by column."""

    place: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]

    def fault(self, line: int, problem: str) -> ValueError:
        """The error for a cell of a line."""
        return ValueError(f"{self.place}, line {line}: {problem}")


def is_csv(place: str) -> bool:
    """Whether a place is a CSV file, by its name."""
    return place.lower().endswith(".csv")


def read_csv(place: str, required: Collection[str], optional: Collection[str] = ()) -> CsvTable:
    """The CSV file at a path or URL, whose first line names the columns; others are left out.

    Cells are separated by commas, semicolons or tabs; white space around them does not count, nor
    do empty lines. FileNotFoundError where there is no file; ValueError naming file, line and the
    next step where a required column is missing or empty, or a row has more or fewer cells.
    """
    place = parse_place(place)
    text = _read_text(place)
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)
    lines = _lines(place, csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    _, header = next(lines, (0, []))
    columns = [name.lower() for name in header]
    _check_columns(place, columns, required, optional)
    rows = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise ValueError(
                f"{place}, line {line}: it has {len(cells)} cells, and the first line names "
                f"{len(columns)} columns; correct the line (a cell with a comma in it wants quotes)"
            )
        row = dict(zip(columns, cells, strict=True))
        if empty := [name for name in required if not row[name]]:
            raise ValueError(f"{place}, line {line}: column {empty[0]} is empty; fill it in")
        rows.append((line, row))
    if not rows:
        raise ValueError(f"{place} has no row below the line that names its columns")
    known = [name for name in columns if name in required or name in optional]
    return CsvTable(place, tuple(known), tuple(rows))


def write_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The text of a CSV file, which ``read_csv`` reads."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([columns, *rows])
    return stream.getvalue()


def _read_text(place: str) -> str:
    url, _, name = place.rpartition("/")
    folder = Folder(url or ("/" if place.startswith("/") else "."))
    try:
        size = folder.size(name)
        if size > MOST_BYTES:
            raise ValueError(f"{place} has {size:,} bytes, more than {MOST_BYTES:,}")
        return folder.read(name).decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {place}; check its path or URL") from None
    except UnicodeDecodeError:
        raise ValueError(f"{place} is no UTF-8 text; save it as UTF-8 CSV") from None


def _lines(place: str, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line that is not empty."""
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield reader.line_num, cells  # type: ignore[attr-defined]
    except csv.Error as error:
        raise ValueError(f"{place} is no CSV text ({error}); save it as UTF-8 CSV") from None


def _check_columns(
    place: str, columns: Sequence[str], required: Collection[str], optional: Collection[str]
) -> None:
    for name in required:
        if name not in columns:
            named = ", ".join(map(quoted, columns[:20])) or "none"
            others = [column for column in columns if column not in {*required, *optional}]
            also = f", and may name {', '.join(optional)}" if optional else ""
            raise ValueError(
                f"{place}: no column {name}; its first line names {named}"
                f"{nearest(name, others, 'of them')}. The first line must name "
                f"{', '.join(required)}{also}"
            )
    twice = [name for name in columns if columns.count(name) > 1 and name in {*required, *optional}]
    if twice:
        raise ValueError(f"{place}: two columns are called {twice[0]}; rename one of them")
