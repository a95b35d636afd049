"""Parquet in pieces, by the names of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet

from shards.files.source import Source
from shards.files.text_tables import AGAIN

_ROWS = 2**16


def parquet_batches(
    source: Source, path: str, choose: Callable[[Sequence[str]], list[str]]
) -> Iterator[pa.RecordBatch]:
    """Batches of rows of the columns that ``choose`` takes from the names of all.

    ValueError naming the file where it is damaged, no Parquet, or has no row.
    """
    where, rows = source.locate(path), 0
    with source.open(path) as stream:
        try:
            # Threads of Arrow must not call a stream of Python: see text_blocks.
            file = pa.parquet.ParquetFile(stream, pre_buffer=False)
            wanted = choose(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):
                batch.validate(full=True)  # texts may be no UTF-8
                rows += batch.num_rows
                yield plain(batch)
        except OSError as error:
            # Arrow's own, for damaged pages, have no number; others are the storage's.
            if type(error) is not OSError or error.errno is not None:
                raise
            raise ValueError(f"{where} is damaged ({error!s:.300}); download it again") from None
        except (pa.ArrowException, UnicodeDecodeError, RecursionError, MemoryError) as error:
            fault = " ".join(str(error).split())[:300]
            raise ValueError(f"{where} is no Parquet file ({fault}); download it again") from None
    if not rows:
        raise ValueError(f"{where}: no row; {AGAIN}")


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, with categories of pandas replaced by their values."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
