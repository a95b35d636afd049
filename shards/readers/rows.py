"""Functions for readers of labelled data sets: listings, rows at a fixed rate, label spans."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from shards.files.source import Source
from shards.recording import LabelSpan, RecordingRef, Samples

CHUNK_ROWS = 2**16


def checked_listing(
    source: Source, refs: Iterable[RecordingRef], looked_for: str
) -> list[RecordingRef]:
    """The recordings sorted by name.

    FileNotFoundError naming ``looked_for`` where there are none; ValueError naming the files where
    two recordings have the same name, for example if two data sets are below the source.
    """
    ordered = sorted(refs, key=lambda ref: ref.name)
    if not ordered:
        skipped = "; ".join(f"{path} {why}" for path, why in sorted(source.skipped.items())[:3])
        raise FileNotFoundError(
            f"no {looked_for} below {source.url}{f' ({skipped})' if skipped else ''}; point --src "
            "at the folder of the data set as its authors lay it out"
        )
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise ValueError(
                f"{source.locate(one.files[0])} and {source.locate(other.files[0])} are both "
                f"recording {one.name}; point --src at the folder of one data set"
            )
    return ordered


def activity_name(text: str) -> str:
    """An activity as all readers write it: in small letters, with single spaces."""
    return " ".join(text.lower().split())


def regular_samples(values: np.ndarray, rate_hz: float) -> Iterator[Samples]:
    """Rows ``(n, c)`` of a file without times, the first at 0 s, in chunks."""
    for start in range(0, len(values), CHUNK_ROWS):
        rows = np.asarray(values[start : start + CHUNK_ROWS], dtype=np.float64)
        yield Samples((start + np.arange(len(rows))) / rate_hz, rows)


def label_spans(
    time_s: np.ndarray,
    codes: np.ndarray,
    names: Mapping[Any, str | None],
    where: str,
    *,
    longest_gap_s: float = 1.0,
) -> tuple[LabelSpan, ...]:
    """Spans of one activity, from the times and activity codes ``(n,)`` of a file's rows.

    names: of all codes, None for those that are no activity (null, transient). Rows are sorted by
    time; those without a time are left out. A span goes from its first row to its last. A row more
    than ``longest_gap_s`` after the one before begins a new span. So a jump of the clock makes
    spans shorter, never longer. ValueError naming the file (``where``), row and code for a code
    that is not in ``names``.
    """
    unique, number = np.unique(codes, return_inverse=True)
    distinct = unique.tolist()
    named = [code in names for code in distinct]
    if not all(named):
        row = int(np.flatnonzero(~np.array(named)[number])[0])
        code = distinct[number[row]]
        raise ValueError(
            f"{where}: row {row + 1} has the unknown activity code {code!r}; known are "
            f"{', '.join(map(str, names))}. Correct the file, or download it again"
        )
    timed = np.flatnonzero(np.isfinite(time_s))
    order = timed[np.argsort(time_s[timed], kind="stable")]
    time_s, number = time_s[order], number[order]
    breaks = np.flatnonzero((np.diff(time_s) > longest_gap_s) | (np.diff(number) != 0)) + 1
    spans: list[LabelSpan] = []
    for start, stop in itertools.pairwise([0, *breaks.tolist(), len(number)]):
        if start == stop:
            continue  # no rows at all
        start_s, end_s = time_s[[start, stop - 1]].tolist()
        label = names[distinct[number[start]]]
        if label is not None and end_s > start_s:
            spans.append(LabelSpan(start_s, end_s, label))
    return tuple(spans)
