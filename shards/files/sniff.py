"""How a text table seems to be written: its separator, decimal point, header and first row.

found = sniff(source, "walk.csv")
found.form.skip_lines   # 10
found.names             # ("t", "ax", ...), or None where no line names the columns

For advice and drafts, which a person corrects. No data are read by such a guess alone.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from dataclasses import dataclass

from shards.files.source import Source
from shards.files.text_tables import NULLS, SEPARATOR, TextForm, is_number
from shards.files.times import looks_like_time

HEAD_BYTES = 2**18
_MOST_LINES = 1000
_LEAST_SHARE = 0.6  # of the last lines that must be rows
_UNIT = re.compile(
    r"[\[(]?(u?s|ms|ns|sec(onds?)?|m?g|-g|g/64|m/s.*|m/\(.*|m/sec.*|(k?deg|°|dps|rad|mrad).*|hz|"
    r"u?t|ut|gauss|u?v|mv|yyyy.*|unix.*|no[_ ]units?|lsb|raw|cal|counts?|-|)[\])]?",
    re.I,
)
_SPELLINGS = tuple(
    (delimiter, decimal)
    for delimiter, decimal in itertools.product((",", ";", "\t", "|", " "), ".,")
)


@dataclass(frozen=True)
class Sniffed:
    """A text table as it seems to be. names: of its columns (None: no line names them).

    rows: the first of them, as cells. stated: whether a line ``sep=`` states the separator.
    """

    form: TextForm
    names: tuple[str, ...] | None
    rows: list[list[str]]
    stated: bool


def sniff(source: Source, path: str) -> Sniffed | None:
    """How the text at ``path`` seems to be written, by its first lines; None where no table is."""
    with source.open(path) as stream:
        data = stream.read(HEAD_BYTES)
    text, encoding = _decoded(data)
    lines = text.splitlines()[:_MOST_LINES]
    if len(data) == HEAD_BYTES and len(lines) < _MOST_LINES:
        lines = lines[:-1]  # cut within
    stated = next((m[1] for line in lines[:50] if (m := SEPARATOR.fullmatch(line))), None)
    best: tuple[float, int, list[tuple[int, list[str]]], str, str] | None = None
    for delimiter, decimal in _SPELLINGS:
        if stated is not None and delimiter != stated:
            continue
        rows = _rows(lines, delimiter, decimal)
        if not rows:
            continue
        cells = [cell for _, row in rows for cell in row]
        share = sum(_is_value(cell, decimal) for cell in cells) / len(cells)
        # A table of whole numbers is read alike with either decimal point: the usual one is first.
        score = (round(share, 3) * len(rows), len(rows[0][1]))
        if best is None or score > best[:2]:
            best = (*score, rows, delimiter, decimal)
    if best is None:
        return None
    _, _, rows, delimiter, decimal = best
    return _described(lines, rows, TextForm(delimiter, decimal, encoding=encoding), stated)


def _decoded(data: bytes) -> tuple[str, str]:
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return data[: len(data) // 2 * 2].decode("utf-16", "replace"), "utf-8"  # known by its mark
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(data), "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


def _rows(lines: list[str], delimiter: str, decimal: str) -> list[tuple[int, list[str]]]:
    """Lines from the first row on, with their numbers; none where they are no table."""
    split = [(number, split_line(line, delimiter)) for number, line in enumerate(lines)]
    split = [(number, row) for number, row in split if any(row)]
    if not split:
        return []
    width = len(split[-1][1])
    if width < 2 and len(split) > 1 and delimiter != ",":
        return []
    fits = [
        len(row) == width
        and any(_is_value(cell, decimal) and cell for cell in row)
        and 2 * sum(_is_value(cell, decimal) for cell in row) >= width
        for _, row in split
    ]
    first = len(fits)
    while first and fits[first - 1]:
        first -= 1
    rows = split[first:]
    return rows if len(rows) >= 2 or len(rows) >= _LEAST_SHARE * len(split) else []


def split_line(line: str, delimiter: str) -> list[str]:
    """The cells of a line."""
    if delimiter == " ":
        return line.split()
    try:
        row = next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in row]


def _is_value(cell: str, decimal: str) -> bool:
    return cell in NULLS or is_number(cell, decimal) or looks_like_time(cell)


def _described(
    lines: list[str], rows: list[tuple[int, list[str]]], form: TextForm, stated: str | None
) -> Sniffed:
    """The table with its header, which is the line above the rows, or that above their units."""
    assert form.delimiter is not None
    first, width = rows[0][0], len(rows[0][1])
    above = [(number, split_line(lines[number], form.delimiter)) for number in range(first)]
    above = [(number, row) for number, row in above if len(row) == width and any(row)]
    header = below = None
    if above and above[-1][0] >= first - 2:
        header, names = above[-1]
        units = all(_UNIT.fullmatch(cell) for cell in names) or len(set(names)) < width
        if units and len(above) > 1 and len(set(above[-2][1])) == width:
            below = first - above[-2][0] - 1
            header, names = above[-2]
    table = [row for _, row in rows]
    before = first if header is None else header
    separator_line = any(SEPARATOR.fullmatch(line) for line in lines[:before][-1:])
    skipped = 0 if not any(line.strip() for line in lines[:before]) else before - separator_line
    named = TextForm(form.delimiter, form.decimal, skipped, below or 0, form.encoding)
    return Sniffed(named, tuple(names) if header is not None else None, table, stated is not None)
