"""Where the windows of a device are cut: at its narrations, its label spans, or one after another.

All starts are whole steps of the common grid (time = start / rate_hz on the recording's clock). So
the devices of a recording share their moments, and frames are decoded once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from shards.recording import LabelSpan, Narration
from shards.settings import IngestSettings
from shards.signal.condition import Gap

# A longer gap is a pause or a jump of the clock, where no windows are planned. In shorter ones
# windows are planned, refused and counted.
PAUSE_S = 600.0
MAX_WINDOWS = 10_000_000  # of a device: 19 months of 5 s windows
TOLERANCE = 1e-4  # of rounded times, in grid steps


class PlannedWindow(NamedTuple):
    """A place for a window: first grid index, narrations in it by time, and its label."""

    start: int
    texts: tuple[str, ...]
    label: str | None


class _Grid(NamedTuple):
    """Lengths in grid steps. spacing: least distance of two windows' starts."""

    rate_hz: float
    window: int
    hop: int
    spacing: int

    @classmethod
    def of(cls, settings: IngestSettings) -> _Grid:
        window = settings.window_samples
        spacing = window - math.floor(settings.max_overlap * window + TOLERANCE)
        hop = max(1, round(settings.hop_s * settings.rate_hz))
        return cls(settings.rate_hz, window, hop, max(1, spacing))

    def first(self, start_s: float) -> int:
        """First grid index at or after this time."""
        return math.ceil(start_s * self.rate_hz - TOLERANCE)

    def last(self, end_s: float) -> int:
        """Latest start of a window whose samples all lie at or before this time."""
        return math.floor(end_s * self.rate_hz + TOLERANCE) - self.window + 1


def plan_windows(
    signal_span: tuple[float, float],
    narrations: Sequence[Narration],
    labels: Sequence[LabelSpan],
    settings: IngestSettings,
    *,
    gaps: Sequence[Gap] = (),
) -> list[PlannedWindow]:
    """The windows of a device whose samples span ``signal_span`` seconds, ordered by start.

    All samples of a window lie in the span, and in none of its pauses (``gaps`` longer than ten
    minutes).

    - With narrations: a window is centred on each in time order (moved inwards at the ends of the
      span), unless it would overlap the one before by more than ``max_overlap``. The time between
      them is tiled every ``hop_s`` from the end of the window before.
    - With labels only: each label span is tiled every ``hop_s`` from its start, windows wholly
      inside.
    - With neither: the span is tiled at multiples of ``hop_s``.

    texts: every narration of which, or of the window, at least half lies in the other, and points
    within it; by time, equal texts once. label: that of the span in which the window lies wholly.
    Windows overlap by at most ``max_overlap``, save tiles where ``hop_s`` asks for more.

    ValueError where the span has an absurd number of windows, as after a jump of the clock that
    is not given in ``gaps``.
    """
    grid = _Grid.of(settings)
    spans = _without_pauses(signal_span, gaps)
    seconds = sum(end_s - start_s for start_s, end_s in spans)
    if seconds * settings.rate_hz / grid.hop > MAX_WINDOWS:
        raise ValueError(
            f"{seconds:.0f} s of samples from {signal_span[0]:.0f} s on would be more than "
            f"{MAX_WINDOWS} windows; check the clock of the recording"
        )
    if narrations:
        narrated = sorted(narrations, key=lambda n: (n.start_s + n.end_s, n.start_s))
        starts = [start for span in spans for start in _around(span, narrated, grid)]
    elif labels:
        starts = _in_labels(spans, labels, grid)
    else:
        starts = [start for span in spans for start in _tiles(span, grid)]
    texts = _NarrationFinder(narrations, grid)
    names = _LabelFinder(labels, grid)
    return [PlannedWindow(start, texts.of(start), names.of(start)) for start in starts]


def _without_pauses(span: tuple[float, float], gaps: Sequence[Gap]) -> list[tuple[float, float]]:
    """The parts of the span between its pauses."""
    spans, begin = [], span[0]
    for gap in sorted(gap for gap in gaps if gap.end_s - gap.start_s > PAUSE_S):
        if gap.start_s > begin:
            spans.append((begin, min(gap.start_s, span[1])))
        begin = max(begin, gap.end_s)
    return [*spans, (begin, span[1])] if begin < span[1] else spans


def _tiles(span: tuple[float, float], grid: _Grid) -> range:
    """Starts at multiples of the hop."""
    first = -(-grid.first(span[0]) // grid.hop) * grid.hop
    return range(first, grid.last(span[1]) + 1, grid.hop)


def _in_labels(
    spans: Sequence[tuple[float, float]], labels: Sequence[LabelSpan], grid: _Grid
) -> list[int]:
    """Starts every hop from the beginning of each label span; overlapping spans share time."""
    starts: list[int] = []
    spacing = min(grid.hop, grid.spacing)
    for label in sorted(labels):
        for begin_s, end_s in spans:
            first = grid.first(max(begin_s, label.start_s))
            last = grid.last(min(end_s, label.end_s))
            for start in range(first, last + 1, grid.hop):
                if not starts or start >= starts[-1] + spacing:
                    starts.append(start)
    return starts


def _around(
    span: tuple[float, float], narrations: Sequence[Narration], grid: _Grid
) -> Iterator[int]:
    """Starts of windows on narrations (ordered by their middles), and of tiles between them."""
    first, last = grid.first(span[0]), grid.last(span[1])
    centred: list[int] = []
    for narration in narrations:
        middle_s = (narration.start_s + narration.end_s) / 2
        if first <= last and span[0] <= middle_s <= span[1]:
            start = round(middle_s * grid.rate_hz - grid.window / 2)
            start = min(max(start, first), last)
            if not centred or start >= centred[-1] + grid.spacing:
                centred.append(start)
    if not centred:
        yield from _tiles(span, grid)
        return
    # Tiles overlap their neighbours no more than each other, and never beyond max_overlap.
    spacing = min(grid.window, max(grid.hop, grid.spacing))
    yield from (tile for tile in _tiles(span, grid) if tile + spacing <= centred[0])
    for start, after in zip(centred, [*centred[1:], last + spacing], strict=True):
        yield start
        yield from range(start + spacing, after - spacing + 1, grid.hop)


class _NarrationFinder:
    """Finds the narrations of a window."""

    def __init__(self, narrations: Sequence[Narration], grid: _Grid) -> None:
        self._grid = grid
        ordered = sorted(narrations, key=lambda n: (n.start_s, n.end_s))
        self._texts = [narration.text for narration in ordered]
        self._start_s = np.array([narration.start_s for narration in ordered], np.float64)
        self._end_s = np.array([narration.end_s for narration in ordered], np.float64)
        self._length_s = self._end_s - self._start_s

    def of(self, start: int) -> tuple[str, ...]:
        if not self._texts:
            return ()
        begin_s = start / self._grid.rate_hz
        end_s = (start + self._grid.window) / self._grid.rate_hz
        common_s = np.minimum(self._end_s, end_s) - np.maximum(self._start_s, begin_s)
        needed_s = np.minimum(self._length_s, end_s - begin_s) / 2
        points = (self._length_s <= 0) & (begin_s <= self._start_s) & (self._start_s < end_s)
        inside = points | ((self._length_s > 0) & (common_s >= needed_s))
        return tuple(dict.fromkeys(self._texts[row] for row in np.flatnonzero(inside)))


class _LabelFinder:
    """Finds the label of a window."""

    def __init__(self, labels: Sequence[LabelSpan], grid: _Grid) -> None:
        self._labels = sorted(labels)
        self._first = np.array([grid.first(label.start_s) for label in self._labels], np.int64)
        self._last = np.array([grid.last(label.end_s) for label in self._labels], np.int64)

    def of(self, start: int) -> str | None:
        inside = np.flatnonzero((self._first <= start) & (start <= self._last))
        return self._labels[inside[0]].label if len(inside) else None
