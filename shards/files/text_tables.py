"""Tables as text, read in pieces: CSV in all its spellings, and numbers between white space.

layout = Layout(where, names, numbers=("x", "y"), form=TextForm(delimiter=";", decimal=","))
for batch in text_batches(source, path, layout): ...   # of Arrow, columns by name

A wrong cell has to be found by the person who mends it, so errors name the file, the line (the
first is 1) and the column.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from shards.files.source import Source
from shards.files.text_blocks import OpenQuoteError, RowError, parse_block, row_blocks

NULLS = ("", "NaN", "nan", "NA", "null")
AGAIN = "correct the file, or download it again"
MOST_LINE = 2**20  # characters; beyond it a file is taken to be no text
_BLOCK_BYTES = 2**20
_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|-?(nan|inf(inity)?)", re.I)
SEPARATOR = re.compile(
    r'\s*"?sep=([\x21-\x7e\t ])"?\s*', re.I
)  # a first line that Excel writes and reads
_ROW = re.compile(r"Row #[0-9]+: ")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class TextForm:
    """How a text table is written.

    delimiter: between cells; a space is any white space; None: a comma, or what a first line
    ``sep=;`` says. decimal: the point of numbers. skip_lines: before the header, or where there is
    none before the first row. skip_below: between the header and the first row. encoding: of the
    text; UTF-16 is known by its mark.
    """

    delimiter: str | None = None
    decimal: str = "."
    skip_lines: int = 0
    skip_below: int = 0
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Layout:
    """How a text file is read. names: of all cells of a row.

    numbers, texts: names of the columns that are wanted. skip: lines before the first row.
    """

    where: str
    names: Sequence[str]
    numbers: Sequence[str]
    texts: Sequence[str] = ()
    form: TextForm = field(default_factory=TextForm)
    skip: int = 0
    nulls: Sequence[str] = NULLS

    @property
    def spaced(self) -> bool:
        """Whether white space is between cells."""
        return self.form.delimiter == " "


@contextmanager
def open_text(source: Source, path: str, encoding: str) -> Iterator[BinaryIO]:
    """The text in UTF-8, whatever it is written in; ValueError where it is written otherwise."""
    with source.open(path) as stream:
        if encoding == "utf-8":
            yield stream
            return
        with pa.transcoding_input_stream(pa.PythonFile(stream, "r"), encoding, "utf-8") as text:
            try:
                yield text
            except UnicodeError:
                where = source.locate(path)
                raise ValueError(f"{where} is no table of {encoding} text; {AGAIN}") from None


def read_header(
    source: Source, path: str, form: TextForm, *, named: bool = True
) -> tuple[list[str], int, TextForm]:
    """Names of a text table's columns, the lines down to the first row, and the form it has.

    named: whether a line names the columns; otherwise they are called 0, 1, and so on. The
    delimiter is that of a line ``sep=`` where the form says none.
    """
    where = source.locate(path)
    form, first = _separated(source, path, form)
    with open_text(source, path, form.encoding) as stream:
        for _, row, last in cells(stream, form, where, skip=first):
            if not named:
                return [str(number) for number in range(len(row))], first, form
            names = [name.strip() for name in row]
            if any("\0" in name or "\ufffd" in name for name in names):
                raise ValueError(f"{where} is no table of UTF-8 text; {AGAIN}, or say its encoding")
            if any(names):
                return names, last + form.skip_below, form
    raise ValueError(f"{where}: {_no_row(first)}; {AGAIN}")


def _separated(source: Source, path: str, form: TextForm) -> tuple[TextForm, int]:
    """The form with its delimiter and encoding, and the lines before the header."""
    with source.open(path) as stream:
        encoding = "utf-16" if stream.read(2) in _UTF16 else form.encoding
    with open_text(source, path, encoding) as stream:
        lines = bounded_lines(stream, source.locate(path))
        first = next(lines, "")
        for _ in range(form.skip_lines):
            first = next(lines, "")
    stated = SEPARATOR.fullmatch(first.rstrip("\r\n"))
    delimiter = form.delimiter or (stated[1] if stated else ",")
    found = replace(form, delimiter=delimiter, encoding=encoding)
    return found, form.skip_lines + bool(stated)


def bounded_lines(stream: BinaryIO, where: str) -> Iterator[str]:
    """Lines of text with their ends; ValueError for one longer than any table has."""
    with io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="") as text:
        number = 0
        while line := text.readline(MOST_LINE):
            number += 1
            if len(line) == MOST_LINE:
                raise ValueError(
                    f"{where}: line {number} has more than {MOST_LINE:,} characters, so it is no "
                    f"table; {AGAIN}"
                )
            yield line


def cells(
    stream: BinaryIO, form: TextForm, where: str, skip: int = 0
) -> Iterator[tuple[int, list[str], int]]:
    """Each row's first line, counted from 1, its cells, and its last line; blank ones left out.

    skip: lines that are passed over, whatever they hold.
    """
    lines = bounded_lines(stream, where)
    for _ in range(skip):
        next(lines, None)
    if form.delimiter == " ":
        for line, content in enumerate(lines, start=skip + 1):
            if row := content.split():
                yield line, row, line
        return
    rows = csv.reader(lines, delimiter=form.delimiter or ",")
    before = 0
    try:
        for row in rows:
            if row:
                yield skip + before + 1, row, skip + rows.line_num
            before = rows.line_num
    except csv.Error as error:  # of a quotation mark that is never closed
        raise ValueError(f"{where}: line {skip + before + 1}: {error}; {AGAIN}") from None


def text_batches(
    source: Source, path: str, layout: Layout, *, max_rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of the rows; where one is wrong, the file is read again to tell what.

    max_rows: lines to read from the first row on, of a file with white space between cells.
    """
    rows = 0
    try:
        with open_text(source, path, layout.form.encoding) as stream:
            for batch in _batches(stream, layout, max_rows):
                rows += batch.num_rows
                yield batch
    except (pa.ArrowException, RowError) as error:
        fault = _fault(source, path, layout, error)
        raise ValueError(f"{layout.where}: {fault}; {AGAIN}") from None
    if not rows:
        raise ValueError(f"{layout.where}: {_fault(source, path, layout)}; {AGAIN}")


def _batches(stream: BinaryIO, layout: Layout, max_rows: int | None) -> Iterator[pa.RecordBatch]:
    delimiter = layout.form.delimiter or ","
    types = {name: pa.float64() for name in layout.numbers}
    types |= {name: pa.string() for name in layout.texts}
    parse = pa.csv.ParseOptions(
        delimiter=delimiter,
        quote_char=False if layout.spaced else '"',
        newlines_in_values=not layout.spaced,
    )
    convert = pa.csv.ConvertOptions(
        column_types=types,
        include_columns=list(types),
        null_values=layout.nulls,
        decimal_point=layout.form.decimal,
    )
    quotes_after = None if layout.spaced else delimiter
    blocks = row_blocks(stream, size=_BLOCK_BYTES, quotes_after=quotes_after, skip=layout.skip)
    for block in _single_spaces(blocks, max_rows) if layout.spaced else blocks:
        for batch in parse_block(block, layout.names, parse, convert).to_batches():
            if batch.num_rows:
                yield batch


def _single_spaces(blocks: Iterable[bytes], most: int | None) -> Iterator[bytes]:
    """At most so many lines, with one space wherever there was white space between two cells."""
    left = most
    for block in blocks:
        lines = block.splitlines()[:left]
        yield b"".join(b" ".join(line.split()) + b"\n" for line in lines)
        if left is not None:
            left -= len(lines)
            if not left:
                return


def _fault(source: Source, path: str, layout: Layout, error: Exception | None = None) -> str:
    """What is wrong with a text file: its first row that does not fit, or that it has none.

    error: what was said of it, for a file in which all rows fit.
    """
    places = {name: layout.names.index(name) for name in layout.numbers}
    width, rows, line = len(layout.names), 0, 0
    with open_text(source, path, layout.form.encoding) as stream:
        for line, row, _ in cells(stream, layout.form, layout.where, skip=layout.skip):
            rows += 1
            if len(row) != width:
                return f"line {line} has {len(row)} cells, not {width}"
            for name, place in places.items():
                cell = row[place]
                if cell not in layout.nulls and not is_number(cell, layout.form.decimal):
                    return f"line {line}, column {name} holds {cell[:80]!r}, which is no number"
            for name in layout.texts:
                cell = row[layout.names.index(name)]
                if "\ufffd" in cell:  # what bytes that are no text are decoded to
                    return f"line {line}, column {name} holds {cell[:80]!r}, which is no UTF-8 text"
    if isinstance(error, OpenQuoteError):
        return f"line {line}: {error}"
    if rows:  # Arrow counts those of a block, not of the file
        return _ROW.sub("", str(error)).strip()
    return _no_row(layout.skip)


def _no_row(skipped: int) -> str:
    return f"no row below line {skipped}" if skipped else "no row, it is empty"


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell holds a number written with this decimal point."""
    text = cell.strip()
    if decimal != ".":
        text = "?" if "." in text else text.replace(decimal, ".")
    return _NUMBER.fullmatch(text) is not None


def joined(parts: Iterable[str]) -> str:
    """Names for a message, a few hundred characters of them."""
    text = ", ".join(parts)
    return text if len(text) <= 500 else f"{text[:500]}..."
