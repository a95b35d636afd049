"""Tables in pieces: CSV and Parquet by the names of columns, matrices of numbers by their places.

for rows in read_table(source, "left wrist.csv", columns=("time", "x", "y", "z")): ...
values = read_matrix(source, "subject101.dat", 54, use=(0, 4, 5, 6))

Files of these data sets reach gigabytes, so text is never held whole. A wrong cell has to be found
by the person who mends it, so errors name the file, the line (the first is 1) and the column.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from shards.files.source import Source
from shards.nearest import nearest

NULLS = ("", "NaN", "nan", "NA", "null")
_BLOCK_BYTES = 4 * 2**20
_ROWS = 2**16
_AGAIN = "correct the file, or download it again"
_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|-?(nan|inf(inity)?)", re.I)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class _Layout:
    """How a text file is read. names: of all cells of a row; delimiter None: white space.

    skip: lines before the first row. numbers, texts: names of the columns that are wanted.
    """

    where: str
    names: Sequence[str]
    numbers: Sequence[str]
    texts: Sequence[str] = ()
    delimiter: str | None = None
    skip: int = 0
    nulls: Sequence[str] = NULLS


def read_table(
    source: Source,
    path: str,
    *,
    columns: Sequence[str] | None = None,
    text_columns: Sequence[str] = (),
    delimiter: str = ",",
    header: bool | Sequence[str] = True,
    null_values: Sequence[str] = NULLS,
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of the table at ``path`` in pieces, by column ``(n,)``: float64, NaN where empty.

    columns: those wanted (None: all). text_columns: those wanted as text, arrays of ``str`` objects
    ("" where empty), whether they stand among ``columns`` or not. header: whether the first line
    names the columns, or, where the file has no such line, the names of all its columns in order
    (False: ``columns`` are these names). Parquet by the extension, CSV otherwise; blank lines, a
    byte order mark and white space around names and numbers are passed over.

    ValueError naming file, line, column and the next step where the file is empty or not of its
    format, a column is missing or there twice, a cell of numbers holds text, or a row has too few
    or too many cells; it comes after the pieces before that row.
    """
    where = source.locate(path)
    if path.lower().endswith((".parquet", ".pq")):
        yield from _parquet(source, path, columns, text_columns)
        return
    skip = 0
    if header is True:
        names, skip = _header(source, path, delimiter)
    else:
        names = list((columns if header is False else header) or ())
    wanted = _wanted(where, names, columns, text_columns)
    layout = _Layout(
        where,
        names,
        numbers=[name for name in wanted if name not in text_columns],
        texts=text_columns,
        delimiter=delimiter,
        skip=skip,
        nulls=null_values,
    )
    with source.open(path) as stream:
        for batch in _batches(source, path, stream, layout):
            yield {
                name: _text(batch[name]) if name in text_columns else _numbers(batch[name])
                for name in wanted
            }


def read_matrix(
    source: Source,
    path: str,
    columns: int,
    *,
    use: Sequence[int] | None = None,
    skip_rows: int = 0,
    max_rows: int | None = None,
) -> np.ndarray:
    """Numbers between white space, ``columns`` on each line: float64 ``(n, len(use))``.

    use: places of the wanted ones, the first is 0 (None: all). Reads at most ``max_rows`` lines
    from line ``skip_rows + 1`` on; blank lines make no row. NaN is a number here. Memory holds the
    wanted numbers and a few megabytes of text.

    ValueError naming file, line and the next step where a line has fewer or more numbers, or text
    among the wanted ones, or there is no line at all, or there are fewer than ``max_rows``.
    """
    names = [str(place + 1) for place in range(columns)]
    wanted = [names[place] for place in (range(columns) if use is None else use)]
    layout = _Layout(source.locate(path), names, numbers=wanted, skip=skip_rows)
    with source.open(path) as raw:
        text = io.BufferedReader(_SingleSpaces(raw, skip_rows, max_rows))
        pieces = [
            np.stack([_numbers(batch[name]) for name in wanted], axis=1)
            for batch in _batches(source, path, text, layout)
        ]
    values = np.concatenate(pieces)
    if max_rows is not None and len(values) < max_rows:
        raise ValueError(
            f"{layout.where} ends after {len(values)} of the {max_rows} rows from line "
            f"{skip_rows + 1} on; download it again"
        )
    return values


class _SingleSpaces(io.RawIOBase):
    """Some lines of a stream, with one space wherever there was white space between two cells."""

    def __init__(self, stream: BinaryIO, skip: int, lines: int | None) -> None:
        super().__init__()
        self._stream = stream
        self._skip = skip
        self._left = lines
        self._pending = memoryview(b"")
        self._first = True

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``, 0 at the end."""
        while not self._pending and self._left != 0:
            block = self._stream.read(_BLOCK_BYTES)
            if not block:
                break
            block += self._stream.readline()
            self._pending = memoryview(self._clean(block))
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _clean(self, block: bytes) -> bytes:
        """Whole lines as they should stand; those that are not asked for left out."""
        if self._first:
            block, self._first = block.removeprefix(_BOM), False
        lines = block.splitlines()
        taken = lines[self._skip :]
        self._skip = max(0, self._skip - len(lines))
        if self._left is not None:
            taken = taken[: self._left]
            self._left -= len(taken)
        return b"".join(b" ".join(line.split()) + b"\n" for line in taken)


def _header(source: Source, path: str, delimiter: str) -> tuple[list[str], int]:
    """Names of a CSV file's columns, and the number of lines down to that of the names."""
    where = source.locate(path)
    with source.open(path) as stream:
        for _, names, last in _cells(stream, delimiter, where):
            names = [name.strip() for name in names]
            if any("\0" in name or "\ufffd" in name for name in names):
                raise ValueError(f"{where} is no table of UTF-8 text; {_AGAIN}")
            if any(names):
                return names, last
    raise ValueError(f"{where}: no row, it is empty; {_AGAIN}")


def _wanted(
    where: str,
    names: Sequence[str],
    columns: Sequence[str] | None,
    text_columns: Sequence[str],
) -> list[str]:
    """The columns to read, each once, in the order asked for; ValueError for one not there."""
    wanted = list(dict.fromkeys([*(names if columns is None else columns), *text_columns]))
    counts = Counter(names)
    for name in wanted:
        if counts[name] > 1:
            raise ValueError(f"{where} has {counts[name]} columns called {name!r}; rename them")
        if not counts[name]:
            raise ValueError(
                f"{where} has no column {name!r}{nearest(name, names)}. "
                f"Its columns are: {', '.join(names)[:500]}"
            )
    return wanted


def _batches(source: Source, path: str, stream: BinaryIO, layout: _Layout) -> Iterator[Any]:
    """Batches of the text in ``stream``; the file is read again to tell what is wrong with it."""
    spaces = layout.delimiter is None
    types = {name: pa.float64() for name in layout.numbers}
    types |= {name: pa.string() for name in layout.texts}
    rows = 0
    try:
        reader = pa.csv.open_csv(
            stream,
            pa.csv.ReadOptions(
                use_threads=False,  # a worker has one core
                block_size=_BLOCK_BYTES,
                column_names=layout.names,
                skip_rows=0 if spaces else layout.skip,
            ),
            pa.csv.ParseOptions(
                delimiter=layout.delimiter or " ",
                quote_char=False if spaces else '"',
                newlines_in_values=not spaces,
            ),
            pa.csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=layout.nulls
            ),
        )
        with reader:
            for batch in reader:
                rows += batch.num_rows
                if batch.num_rows:
                    yield batch
    except pa.ArrowInvalid as error:
        fault = _fault(source, path, layout) or str(error).strip()
        raise ValueError(f"{layout.where}: {fault}; {_AGAIN}") from None
    if not rows:
        raise ValueError(f"{layout.where}: {_fault(source, path, layout)}; {_AGAIN}")


def _fault(source: Source, path: str, layout: _Layout) -> str | None:
    """What is wrong with a text file: its first row that does not fit, or that it has none."""
    places = {name: layout.names.index(name) for name in layout.numbers}
    width, rows = len(layout.names), 0
    with source.open(path) as stream:
        for line, cells, _ in _cells(stream, layout.delimiter, layout.where):
            if line <= layout.skip:
                continue
            rows += 1
            if len(cells) != width:
                return f"line {line} has {len(cells)} cells, not {width}"
            for name, place in places.items():
                cell = cells[place]
                if cell not in layout.nulls and not _NUMBER.fullmatch(cell.strip()):
                    return f"line {line}, column {name} holds {cell[:80]!r}, which is no number"
    if rows:
        return None
    return f"no row below line {layout.skip}" if layout.skip else "no row, it is empty"


def _cells(
    stream: BinaryIO, delimiter: str | None, where: str
) -> Iterator[tuple[int, list[str], int]]:
    """Each row's first line, counted from 1, its cells, and its last line; blank ones left out."""
    with io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="") as text:
        if delimiter is None:
            for line, content in enumerate(text, start=1):
                if cells := content.split():
                    yield line, cells, line
            return
        rows = csv.reader(text, delimiter=delimiter)
        before = 0
        try:
            for cells in rows:
                if cells:
                    yield before + 1, cells, rows.line_num
                before = rows.line_num
        except csv.Error as error:  # of a quotation mark that is never closed
            raise ValueError(f"{where}: line {before + 1}: {error}; {_AGAIN}") from None


def _numbers(column: Any) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _text(column: Any) -> np.ndarray:
    cells = np.empty(len(column), dtype=object)
    cells[:] = ["" if cell is None else cell for cell in column.to_pylist()]
    return cells


def _parquet(
    source: Source, path: str, columns: Sequence[str] | None, text_columns: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    where, rows = source.locate(path), 0
    with source.open(path) as stream:
        try:
            file = pa.parquet.ParquetFile(stream)
            wanted = _wanted(where, file.schema_arrow.names, columns, text_columns)
            for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
                rows += batch.num_rows
                yield {
                    name: _parquet_column(where, name, batch.column(name), name in text_columns)
                    for name in wanted
                }
        except OSError as error:
            # Arrow's own, for damaged pages, have no number; others are the storage's.
            if type(error) is not OSError or error.errno is not None:
                raise
            raise ValueError(f"{where} is damaged ({error}); download it again") from None
        except pa.ArrowInvalid as error:
            raise ValueError(f"{where} is no Parquet file ({error}); download it again") from None
    if not rows:
        raise ValueError(f"{where}: no row; {_AGAIN}")


def _parquet_column(where: str, name: str, column: Any, text: bool) -> np.ndarray:
    if pa.types.is_dictionary(column.type):  # a categorical of pandas
        column = column.dictionary_decode()
    kind = column.type
    if text and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return _text(column)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if text or not number:
        wanted = "text" if text else "numbers"
        raise ValueError(
            f"{where}: column {name!r} is of type {kind}, not of {wanted}; store {wanted} there"
        )
    return _numbers(column.cast(pa.float64(), safe=False))  # times in ns exceed 2**53
