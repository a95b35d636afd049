"""Tables in pieces: text and Parquet by the names of columns, matrices of numbers by their places.

for rows in read_table(source, "left wrist.csv", columns=("time", "x", "y", "z")): ...
values = read_matrix(source, "subject101.dat", 54, use=(0, 4, 5, 6))

Files of these data sets reach gigabytes, so they are never held whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from primus_scale.storage.names import nearest, quoted
from shards.files.parquet_tables import parquet_batches
from shards.files.source import Source
from shards.files.text_tables import (
    NULLS,
    Layout,
    TextForm,
    joined,
    read_header,
    text_batches,
)

PARQUET = (".parquet", ".pq")


def read_table(
    source: Source,
    path: str,
    *,
    columns: Sequence[str] | None = None,
    text_columns: Sequence[str] = (),
    raw_columns: Sequence[str] = (),
    form: TextForm | None = None,
    header: bool | Sequence[str] = True,
    null_values: Sequence[str] = NULLS,
) -> Iterator[dict[str, Any]]:
    """The rows of the table at ``path`` in pieces, by column ``(n,)``: float64, NaN where empty.

    columns: those wanted (None: all). text_columns: those wanted as text, arrays of ``str`` objects
    ("" where empty); raw_columns: as Arrow arrays, texts of a text file and what Parquet has; both
    whether they stand among ``columns`` or not. form: of text. header: whether a line names the
    columns, or, where no line does, the names of all columns in order, or False: they are called
    0, 1, and so on. Parquet by the extension, text otherwise; blank lines, a byte order mark and
    white space around names and numbers are passed over.

    ValueError naming file, line, column and the next step where the file is empty or not of its
    format, a column is missing or there twice, a cell of numbers holds text, or a row has too few
    or too many cells; it comes after the pieces before that row.
    """
    where = source.locate(path)
    others = (*text_columns, *raw_columns)
    choose = partial(_wanted, where, columns=columns, others=others)
    if is_parquet(path):
        for batch in parquet_batches(source, path, choose):
            yield {
                name: batch.column(name)
                if name in raw_columns
                else _typed(where, name, batch.column(name), name in text_columns)
                for name in batch.schema.names
            }
        return
    form = form or TextForm()
    if isinstance(header, bool):
        names, skip, form = read_header(source, path, form, named=header)
    else:
        names, skip = list(header), form.skip_lines
    wanted = choose(names)
    numbers = [name for name in wanted if name not in others]
    layout = Layout(where, names, numbers, others, form, skip, null_values)
    for batch in text_batches(source, path, layout):
        yield {name: _plain(batch.column(name), name, text_columns, raw_columns) for name in wanted}


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet, by its name."""
    return path.lower().endswith(PARQUET)


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
    where = source.locate(path)
    layout = Layout(where, names, numbers=wanted, form=TextForm(" "), skip=skip_rows)
    pieces = [
        np.stack([_numbers(batch.column(name)) for name in wanted], axis=1)
        for batch in text_batches(source, path, layout, max_rows=max_rows)
    ]
    values = np.concatenate(pieces)
    if max_rows is not None and len(values) < max_rows:
        raise ValueError(
            f"{where} ends after {len(values)} of the {max_rows} rows from line {skip_rows + 1} "
            "on; download it again"
        )
    return values


def _wanted(
    where: str, names: Sequence[str], *, columns: Sequence[str] | None, others: Sequence[str]
) -> list[str]:
    """The columns to read, each once, in the order asked for; ValueError for one not there."""
    wanted = list(dict.fromkeys([*(names if columns is None else columns), *others]))
    counts = Counter(names)
    for name in wanted:
        if counts[name] > 1:
            raise ValueError(
                f"{where} has {counts[name]} columns called {quoted(name)}; rename them"
            )
        if not counts[name]:
            raise ValueError(
                f"{where} has no column {quoted(name)}{nearest(name, names)}. "
                f"Its columns are: {joined(names)}"
            )
    return wanted


def _plain(column: Any, name: str, texts: Sequence[str], raw: Sequence[str]) -> Any:
    if name in raw:
        return column
    return _text(column) if name in texts else _numbers(column)


def _numbers(column: Any) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _text(column: Any) -> np.ndarray:
    cells = np.empty(len(column), dtype=object)
    cells[:] = ["" if cell is None else cell for cell in column.to_pylist()]
    return cells


def _typed(where: str, name: str, column: Any, text: bool) -> np.ndarray:
    """A column of Parquet as text or as numbers; ValueError where it is neither."""
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
