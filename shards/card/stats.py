"""Figures of a shard folder for the data card: how much there is, of whom, and whether it is sound.

One pass over the windows (or over an even sample of a very large set), joined with ``ingest.json``
where the folder was made by ingestion. The result is plain JSON; ``shards.card.page`` draws it.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from primus_scale.data.shard_set import ShardSet
from primus_scale.sample import CHANNELS, Window, WindowMeta
from primus_scale.storage.folder import Folder
from shards.card.gates import REPORT, describe_gates
from shards.card.sessions import SessionCounts
from shards.card.verbs import count_verbs
from shards.report import INGEST_NAME

MODALITIES = ("IMU, video and text", "IMU and video", "IMU and text", "IMU only")
READ_AHEAD = 64  # records
SHOWN = 12  # windows drawn on the page
TOP = 20  # verbs and repeated narrations listed
GRAVITY_EDGES = np.round(np.arange(7.0, 13.01, 0.1), 2)  # m/s2, of a window's median |a|
GYROSCOPE_EDGES = np.round(np.logspace(-3, 1.5, 46), 6)  # rad/s, of a window's RMS rotation
WORD_EDGES = np.arange(0, 61, 2)


@dataclass
class _WindowCounts:
    """What is counted window by window."""

    windows: int = 0
    by: dict[str, Counter[str]] = field(
        default_factory=lambda: {
            name: Counter() for name in ("dataset", "placement", "person", "label")
        }
    )
    modalities: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    recordings: set[tuple[str, str]] = field(default_factory=set)
    sessions: SessionCounts = field(default_factory=SessionCounts)
    gravity: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gyroscope: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, imu: np.ndarray, meta: WindowMeta, has_video: bool, rows: _SensorRows) -> None:
        """Count one window; imu ``(C, T)``."""
        self.windows += 1
        for name, counter in self.by.items():
            counter[getattr(meta, name) or "(none)"] += 1
        kind = MODALITIES[(0 if has_video else 2) + (0 if meta.texts else 1)]
        self.modalities[meta.dataset][kind] += 1
        self.recordings.add((meta.dataset, meta.recording))
        self.sessions.add(meta)
        if rows.accelerometer is not None:
            magnitude = np.linalg.norm(imu[rows.accelerometer], axis=0)
            self.gravity[meta.placement].append(float(np.median(magnitude)))
        if rows.gyroscope is not None:
            squares = np.square(imu[rows.gyroscope]).sum(axis=0)
            self.gyroscope[meta.placement].append(float(np.sqrt(squares.mean())))
        self.texts.update(meta.texts)


@dataclass(frozen=True)
class _SensorRows:
    """Rows of a window ``(C, T)`` that hold a sensor's x, y and z; None without that sensor."""

    accelerometer: list[int] | None
    gyroscope: list[int] | None

    @classmethod
    def of(cls, channels: Sequence[str]) -> _SensorRows:
        def rows(names: Sequence[str]) -> list[int] | None:
            return [channels.index(name) for name in names] if {*names} <= {*channels} else None

        return cls(rows(CHANNELS[:3]), rows(CHANNELS[3:]))


def collect_statistics(
    urls: Sequence[str],
    *,
    most: int = 50_000,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[dict[str, Any], list[Window]]:
    """Figures of the shard folders at ``urls`` as JSON, and a dozen of their windows to look at.

    most: windows that are read; a larger set is sampled evenly, and the figures say so. Packed
    shards keep no pictures, so their windows are shown without. Errors as ``ShardSet.open``.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1 window, got {most}")
    source = ShardSet.open(urls)
    tally, shown = _WindowCounts(), _Examples(SHOWN, seed)
    sensor_rows = _SensorRows.of(source.index.channels)
    records = _sample(len(source), most, source.windows, seed)
    for number, (window, has_video) in enumerate(_windows(source, records), start=1):
        tally.add(window.imu, window.meta, has_video, sensor_rows)
        shown.offer(window)
        if number % 5000 == 0:
            report(f"stats  {number} windows read")
    return _figures(urls, source, tally), shown.windows()


def _sample(records: int, most: int, windows: int, seed: int) -> np.ndarray:
    """Numbers of the records to read: one, drawn at random, from each of equally long runs.

    Not every n-th record: the devices of a moment follow each other, so with three devices every
    third record would be of the same one.
    """
    wanted = min(records, max(1, round(records * most / windows)))
    edges = np.linspace(0, records, wanted + 1).round().astype(int)
    draws = np.random.Generator(np.random.Philox(seed)).random(wanted)
    return edges[:-1] + np.floor(draws * np.diff(edges)).astype(int)


def _windows(source: ShardSet, records: np.ndarray) -> Iterator[tuple[Window, bool]]:
    """Each window of the records, and whether it has pictures or their embedding."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(records), READ_AHEAD):
            for block in pool.map(source.read_block, records[start : start + READ_AHEAD].tolist()):
                for row, meta in enumerate(block.metas):
                    frames = block.frames[row] if block.frames else ()
                    embedded = "video" in block.present and bool(block.present["video"][row])
                    yield Window(block.imu[row], meta, frames), bool(frames) or embedded


class _Examples:
    """Keeps windows to look at: of as many data sets, placements and recordings as possible."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._kept: dict[tuple[str, str], list[tuple[float, Window]]] = defaultdict(list)

    def offer(self, window: Window) -> None:
        """Keep a window for now: in each group a random sample (those with the smallest draws)."""
        group = self._kept[window.meta.dataset, window.meta.placement]
        draw = self._generator.random()
        if len(group) < self._count or draw < group[-1][0]:
            group.append((draw, window))
            group.sort(key=lambda pair: pair[0])
            del group[self._count :]

    def windows(self) -> list[Window]:
        """The windows, from each group in turn, those with text and pictures first."""
        groups = [
            sorted(
                (window for _, window in self._kept[key]),
                key=lambda w: (not w.frames, not w.meta.texts),
            )
            for key in sorted(self._kept)
        ]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*groups))
        chosen = [window for window in turns if window is not None][: self._count]
        return sorted(chosen, key=lambda w: (w.meta.dataset, w.meta.placement, w.meta.start_s))


def _figures(urls: Sequence[str], source: ShardSet, tally: _WindowCounts) -> dict[str, Any]:
    index = source.index
    scale = source.windows / tally.windows
    return {
        "urls": list(urls),
        "kind": index.kind,
        "channels": list(index.channels),
        "units": list(index.units),
        "rate_hz": index.rate_hz,
        "window_s": index.window_s,
        "windows": source.windows,
        "windows_read": tally.windows,
        "hours": source.windows * index.window_s / 3600,
        "recordings": len(tally.recordings),
        "sessions": tally.sessions.figures(source),
        "bytes": sum(shard.size for index in source.indexes for shard in index.shards),
        "provenance": [one.provenance for one in source.indexes],
        # From here on in hours, or counts of windows read.
        **{
            f"hours_by_{name}": _hours(counter, index.window_s * scale)
            for name, counter in tally.by.items()
        },
        "hours_by_modality": {
            dataset: _hours(counter, index.window_s * scale)
            for dataset, counter in sorted(tally.modalities.items())
        },
        "gravity": _histograms(tally.gravity, GRAVITY_EDGES),
        "gyroscope": _histograms(tally.gyroscope, GYROSCOPE_EDGES),
        "text": _text_figures(tally.texts),
        "ingest": _read_ingests(urls),
    }


def _hours(counter: Mapping[str, int], seconds: float) -> dict[str, float]:
    return {
        name: count * seconds / 3600
        for name, count in sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    }


def _histograms(values: Mapping[str, list[float]], edges: np.ndarray) -> dict[str, Any] | None:
    """Histograms by placement, values beyond the edges in the outermost bins; with quantiles."""
    if not values:
        return None
    return {
        "edges": edges.tolist(),
        "counts": {
            name: np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0].tolist()
            for name, v in sorted(values.items())
        },
        "quantiles": {
            name: np.quantile(v, (0.01, 0.5, 0.99)).tolist() for name, v in sorted(values.items())
        },
    }


def _text_figures(texts: Counter[str]) -> dict[str, Any] | None:
    """Lengths, verbs and repetition of narrations; None where there are none."""
    if not texts:
        return None
    lengths = [len(text.split()) for text in texts.elements()]
    return {
        "narrations": texts.total(),
        "distinct": len(texts),
        "words": {
            "edges": WORD_EDGES.tolist(),
            "counts": np.histogram(np.clip(lengths, 0, WORD_EDGES[-1]), WORD_EDGES)[0].tolist(),
            "median": float(np.median(lengths)),
        },
        "verbs": count_verbs(texts.elements()).most_common(TOP),
        "repeated": [pair for pair in texts.most_common(TOP) if pair[1] > 1],
    }


def _read_ingests(urls: Sequence[str]) -> dict[str, Any] | None:
    """What ``ingest.json`` of the folders says; None for folders that were made another way."""
    reports = [one for one in map(_read_ingest, urls) if one]
    if not reports:
        return None
    return {
        "recordings": [recording for one in reports for recording in one["recordings"]],
        "gates": describe_gates(reports),
        "unread": [line for one in reports for line in one.get("unread", ())],
        "copies": [line for one in reports for line in one.get("copies", ())],
    }


def _read_ingest(url: str) -> dict[str, Any] | None:
    folder = Folder(url)
    try:
        data = folder.read(INGEST_NAME)
    except FileNotFoundError:
        return None
    try:
        report: dict[str, Any] = json.loads(data)
        REPORT.validate_python(report)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder.locate(INGEST_NAME)} is damaged ({reason}); build the shards again"
        ) from None
    return report
