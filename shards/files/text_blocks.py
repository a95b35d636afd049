"""Text tables cut into blocks of whole rows, and such a block read as a table of Arrow.

for block in row_blocks(stream, size=2**22, quotes_after=","):
    table = parse_block(block, names, parse, convert)

Arrow's readers take streams of Python too, but ask for their bytes ahead of time and from threads
of their own. Such a thread ends the process with an abort where it still runs when the interpreter
exits, and what it has read takes memory. So Arrow gets blocks that lie in its own memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

MOST_ROW = 4 * 2**20  # bytes
_ENDS = np.frombuffer(b"\r\n", np.uint8)


class RowError(ValueError):
    """A row does not end; the message says why."""


class OpenQuoteError(RowError):
    """The last row does not end, for a quotation mark is never closed."""


def row_blocks(
    stream: BinaryIO, *, size: int, quotes_after: str | None = None, skip: int = 0
) -> Iterator[bytes]:
    """The text in blocks of whole rows, about ``size`` bytes each; empty ones are left out.

    Rows end with a line, unless its end stands within a quoted cell, which begins with ``"`` behind
    the delimiter ``quotes_after`` (None: nothing is quoted). skip: lines left out before the first
    row, whatever they hold. A byte order mark is left out.

    RowError where a row is longer than ``MOST_ROW`` bytes, OpenQuoteError.
    """
    rest, first = b"", True
    while data := stream.read(size):
        if first:
            data, first = data.removeprefix(codecs.BOM_UTF8), False
        rest += data
        if skip:
            lines = rest.splitlines(keepends=True)
            gone = min(skip, max(len(lines) - 1, 0))  # the last one may go on
            rest, skip = b"".join(lines[gone:]), skip - gone
        end = 0 if skip else _row_end(rest, quotes_after)[0]
        if rest[:end].strip(b"\r\n"):
            yield rest[:end]
        rest = rest[end:]
        if len(rest) > MOST_ROW:
            raise RowError(f"a row has more than {MOST_ROW:,} bytes, which none of a table has")
    if skip or not rest.strip(b"\r\n"):
        return
    if _row_end(rest, quotes_after)[1]:
        raise OpenQuoteError("a quotation mark is never closed")
    yield rest


def _row_end(text: bytes, quotes_after: str | None) -> tuple[int, bool]:
    """Where the last whole row of a text that begins with a row ends, 0 without one.

    And whether a quoted cell is open where the text ends.
    """
    body = text[:-1] if text.endswith(b"\r") else text  # a line feed may follow
    if quotes_after is None or b'"' not in body:
        return max(body.rfind(b"\n"), body.rfind(b"\r")) + 1, False
    values = np.frombuffer(body, np.uint8)
    marks = np.flatnonzero(values == ord('"'))
    if not _take_turns(values, marks, ord(quotes_after)):
        return _row_end_by_cells(body, quotes_after)
    ends = np.flatnonzero((values == _ENDS[0]) | (values == _ENDS[1]))
    outside = ends[np.searchsorted(marks, ends) % 2 == 0]
    return (int(outside[-1]) + 1 if len(outside) else 0), len(marks) % 2 == 1


def _take_turns(values: np.ndarray, marks: np.ndarray, delimiter: int) -> bool:
    """Whether each quotation mark opens a cell or closes one, the two by turns.

    They do where each that has to open one begins a cell, or is the second of a pair within a cell.
    """
    opening = marks[::2]
    before = values[np.maximum(opening - 1, 0)]
    begins = (opening == 0) | (before == delimiter) | np.isin(before, _ENDS)
    begins[1:] |= opening[1:] == marks[1::2][: len(opening) - 1] + 1
    return bool(begins.all())


def _row_end_by_cells(text: bytes, delimiter: str) -> tuple[int, bool]:
    """As ``_row_end``, of a text with quotation marks that are part of a cell, as in 5" or a"b"."""
    pattern = rb'(?<![^\r\n%s])"[^"]*(?:""[^"]*)*("?)' % re.escape(delimiter.encode())
    end, start, opened = 0, 0, False
    for cell in re.finditer(pattern, text):
        end = _last_line_end(text, start, cell.start()) or end
        start, opened = cell.end(), not cell[1]
    return _last_line_end(text, start, len(text)) or end, opened


def _last_line_end(text: bytes, start: int, stop: int) -> int:
    return max(text.rfind(b"\n", start, stop), text.rfind(b"\r", start, stop)) + 1


def parse_block(
    block: bytes,
    names: Sequence[str],
    parse: pa.csv.ParseOptions,
    convert: pa.csv.ConvertOptions,
) -> pa.Table:
    """The rows of a block, whose cells have these names; pa.ArrowException where they are wrong."""
    # Not a buffer of Python's: a thread of Arrow that lets go of one needs the interpreter.
    buffer = pa.allocate_buffer(len(block))
    memoryview(buffer).cast("B")[:] = block
    read = pa.csv.ReadOptions(
        use_threads=False,  # a worker has one core
        block_size=len(block) + 1,  # whole
        column_names=list(names),
    )
    return pa.csv.read_csv(pa.BufferReader(buffer), read, parse, convert)
