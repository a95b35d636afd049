"""Labels of own recordings: a file of spans, or a label next to each row of samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from primus_scale.storage.names import quoted
from shards.files.source import Source
from shards.files.tables import read_table
from shards.files.text_tables import NULLS
from shards.files.times import NOT_A_TIME, TimeReader, looks_like_time
from shards.readers.rows import label_spans
from shards.readers.table_yaml import LabelsFile
from shards.readers.timed_rows import (
    ClockOrigin,
    common_origin,
    prefix_and_advise,
    prefix_errors,
    read_first_time,
    timed_rows,
)
from shards.recording import LabelSpan

_TIMES = ("start_s", "end_s")


def read_labels(
    source: Source, path: str, file: LabelsFile, where: str, origin: ClockOrigin
) -> tuple[LabelSpan, ...]:
    """The spans on the recording's clock, by time.

    origin: of that clock, for files with dates. ValueError naming ``where``, the file and its rows
    where a span has no label or no length, and where two overlap.
    """
    spans = _of_rows(source, path, file, where, origin) if file.column else None
    if spans is None:
        with prefix_and_advise(source, path, file, where):
            spans = _checked(list(_rows(source, path, file, origin)), source.locate(path))
    shift = file.offset_s
    return tuple(LabelSpan(s + shift, e + shift, label) for s, e, label in spans)


def _of_rows(
    source: Source, path: str, file: LabelsFile, where: str, origin: ClockOrigin
) -> tuple[LabelSpan, ...]:
    """Spans of rows with the same label; rows without a label are in no span."""
    assert file.column is not None
    start = read_first_time(source, path, file, where)
    with prefix_errors(where):
        own = common_origin([(file.file, start)])
        if own.clock is not None and own.clock is not origin.clock:
            raise ValueError(
                f"{file.file} has {own.clock.value}, but the samples have none of them; write "
                "the times of both alike"
            )
    segments = [
        (time_s, segment[file.column].astype(str))
        for time_s, segment in timed_rows(
            source, path, file, where, start, origin, text_columns=(file.column,)
        )
    ]
    time_s = np.concatenate([times for times, _ in segments])
    labels = np.char.strip(np.concatenate([texts for _, texts in segments]))
    names = {label: None if label in NULLS else label for label in np.unique(labels).tolist()}
    return label_spans(time_s, labels, names, source.locate(path))


def _rows(
    source: Source, path: str, file: LabelsFile, origin: ClockOrigin
) -> Iterator[tuple[float, float, str]]:
    """Start, end and label of each row; times are seconds, or dates as the samples have them."""
    dated = _are_dates(next(_segments(source, path, file, raw_columns=_TIMES))[_TIMES[0]])
    readers = {name: TimeReader(f"{source.locate(path)}: column {name}") for name in _TIMES}
    for segment in _segments(source, path, file, **{"raw_columns" if dated else "columns": _TIMES}):
        times = [
            _seconds(segment[name], readers[name], origin) if dated else segment[name]
            for name in _TIMES
        ]
        yield from zip(*(time.tolist() for time in times), segment["label"].tolist(), strict=True)


def _segments(
    source: Source, path: str, file: LabelsFile, **wanted: Any
) -> Iterator[dict[str, Any]]:
    form = file.form() if file.is_text else None
    return read_table(source, path, **{"columns": (), **wanted}, text_columns=("label",), form=form)


def _are_dates(cells: Any) -> bool:
    kind = cells.type
    if pa.types.is_string(kind):
        filled = (cell for cell in cells.to_pylist() if (cell or "").strip() not in NULLS)
        return looks_like_time(next(filled, ""))
    return not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _seconds(cells: Any, reader: TimeReader, origin: ClockOrigin) -> np.ndarray:
    ns = reader.read(cells)
    if reader.clock not in (None, origin.clock):
        raise ValueError(
            f"labels have {reader.clock.value}, but the samples have not; write them as seconds "
            "from the first sample on, or as the samples' times"
        )
    return np.where(ns == NOT_A_TIME, np.nan, (ns - origin.ns) * 1e-9)


def _checked(rows: list[tuple[float, float, str]], where: str) -> tuple[LabelSpan, ...]:
    """The spans by time; ValueError naming rows as ``read_labels`` does."""
    spans: list[tuple[LabelSpan, int]] = []
    for row, cells in enumerate(rows, start=1):
        span = LabelSpan(*cells)
        if not span.label.strip() or not -math.inf < span.start_s < span.end_s < math.inf:
            raise ValueError(
                f"{where}: row {row} below the header: {quoted(span.label)} from "
                f"{span.start_s:g} s to {span.end_s:g} s is no span of an activity; "
                "correct it, or leave the row out"
            )
        spans.append((span, row))
    spans.sort()
    for (one, first), (other, second) in itertools.pairwise(spans):
        if other.start_s < one.end_s:
            raise ValueError(
                f"{where}: rows {first} and {second} below the header overlap; let "
                f"{quoted(one.label)} end before {quoted(other.label)} starts"
            )
    return tuple(span._replace(label=span.label.strip()) for span, _ in spans)
