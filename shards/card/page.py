"""The data card: one HTML page, and JSON, that say whether a shard folder is worth a cluster.

It begins with how much there is and what deserves a second look. Then it shows whose data it is,
what was refused and why, rates, gravity, rotation, clocks and narrations. At the end are a dozen
windows as they are, with pictures and text. The page is ``templates/card.html``; this module
gathers its figures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from primus_scale.monitor.page import data_url, explain_failed_page, render_page
from primus_scale.sample import Window
from primus_scale.storage.folder import Folder, explain_write_errors
from primus_scale.teachers.base import UnreadableFrameError, decode_frame
from shards.card.attention import attention, failures, lags, rate_deviations, refusals
from shards.card.charts import (
    GREY,
    ORANGE,
    STANDARD_GRAVITY,
    bars_chart,
    histogram_chart,
    lag_chart,
    modality_chart,
    people_chart,
    rates_chart,
    window_chart,
    words_chart,
)
from shards.card.gate_tables import MOST_LABELS, MOST_SENSORS, gate_tables
from shards.card.stats import collect_statistics

PAGE_NAME, JSON_NAME = "card.html", "card.json"
SHOWN_FRAMES = 4
FRAME_PIXELS = 168
MOST_ROWS = 15


def write_card(
    urls: Sequence[str],
    out_url: str | None = None,
    *,
    most: int = 50_000,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write ``card.html`` and ``card.json`` of the shard folders at ``urls``; return the figures.

    out_url: folder to write to (None: the first of ``urls``). most: windows read; a larger set is
    sampled evenly. Errors as ``ShardSet.open``; OSError naming ``out_url`` where it cannot be
    written; ValueError where the page cannot be drawn, with ``card.json`` written.
    """
    figures, windows = collect_statistics(urls, most=most, report=report)
    folder = Folder(out_url or urls[0])
    _write(folder, JSON_NAME, json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False))
    report(folder.locate(JSON_NAME))
    with explain_failed_page(folder.locate(PAGE_NAME), folder.locate(JSON_NAME)):
        page = render_card(figures, windows)
    _write(folder, PAGE_NAME, page)
    report(folder.locate(PAGE_NAME))
    return figures


def _write(folder: Folder, name: str, text: str) -> None:
    # Paths may hold bytes that are no UTF-8; they are written as escapes.
    data = text.rstrip("\n").encode("utf-8", "backslashreplace") + b"\n"
    with explain_write_errors(folder.url):
        folder.create()
        with folder.staging(name) as path:
            path.write_bytes(data)


def render_card(figures: Mapping[str, Any], windows: Sequence[Window]) -> str:
    """The page on ``figures`` (``stats.collect_statistics``) with ``windows`` to look at."""
    ingest = figures["ingest"]
    return render_page(
        "shards.card",
        "card.html",
        figures=figures,
        channels=[
            f"{name} ({unit})"
            for name, unit in zip(figures["channels"], figures["units"], strict=True)
        ],
        tiles=_tiles(figures),
        attention=attention(figures),
        datasets=_datasets(figures),
        charts=_charts(figures) | (_ingest_charts(figures, ingest) if ingest else {}),
        failed=failures(ingest) if ingest else [],
        notes=[(r["name"], note) for r in ingest["recordings"] for note in r["notes"]]
        if ingest
        else [],
        gates=gate_tables(ingest["gates"]) if ingest else None,
        repeated=_repeated(figures["text"]),
        windows=[_example(figures, window) for window in windows],
        most_rows=MOST_ROWS,
        most_sensors=MOST_SENSORS,
        most_labels=MOST_LABELS,
    )


def _tiles(figures: Mapping[str, Any]) -> dict[str, str]:
    kinds = list(figures["hours_by_modality"].values())
    total = sum(sum(row.values()) for row in kinds)

    def share(word: str) -> str:
        return f"{100 * sum(v for row in kinds for k, v in row.items() if word in k) / total:.0f} %"

    tiles = {
        **_duration(figures["hours"]),
        "recordings": f"{figures['recordings']:,}",
        "sessions": f"{figures['sessions']['count']:,}",
        "people": f"{len(figures['hours_by_person']):,}",
        "placements": f"{len(figures['hours_by_placement']):,}",
        "with video": share("video"),
        "with text": share("text"),
        **_size(figures["bytes"]),
    }
    if ingest := figures["ingest"]:
        refused = refusals(ingest).total()
        tiles["of planned windows refused"] = (
            f"{100 * refused / (refused + figures['windows']):.0f} %"
        )
    return tiles


def _datasets(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the data sets are, in the words of whoever wrote the shards."""
    datasets: dict[str, Any] = {}
    for provenance in figures["provenance"]:
        datasets |= provenance.get("datasets", {})
    return datasets


def _charts(figures: Mapping[str, Any]) -> dict[str, Figure | None]:
    """What is drawn of the windows, by name; None where there is nothing to draw."""
    gravity, rotation, text = figures["gravity"], figures["gyroscope"], figures["text"]
    labels = figures["hours_by_label"]
    verbs = {verb: float(count) for verb, count in text["verbs"]} if text else {}
    return {
        "modality": modality_chart(figures["hours_by_modality"]),
        "placement": bars_chart(figures["hours_by_placement"], "hours"),
        "people": people_chart(figures["hours_by_person"]),
        "label": bars_chart(labels, "hours") if set(labels) != {"(none)"} else None,
        "gravity": histogram_chart(gravity, "median |acceleration|, m/s2", mark=STANDARD_GRAVITY)
        if gravity
        else None,
        "rotation": histogram_chart(rotation, "rotation, rad/s", log=True) if rotation else None,
        "words": words_chart(text["words"]) if text else None,
        "verbs": bars_chart(verbs, "narrations", GREY) if text else None,
        "refused": None,
        "rates": None,
        "lags": None,
    }


def _ingest_charts(
    figures: Mapping[str, Any], ingest: Mapping[str, Any]
) -> dict[str, Figure | None]:
    """What is drawn of ``ingest.json``, as ``_charts``."""
    refused, deviations, reports = refusals(ingest), rate_deviations(ingest), lags(ingest)
    hours = {reason: n * figures["window_s"] / 3600 for reason, n in refused.most_common()}
    return {
        "refused": bars_chart(hours, "hours of planned windows", ORANGE) if refused else None,
        "rates": rates_chart(deviations) if deviations else None,
        "lags": lag_chart(reports) if reports else None,
    }


def _repeated(text: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Narrations that repeat most, and how often."""
    return [(told, f"{count:,}") for told, count in text["repeated"][:8]] if text else []


def _example(figures: Mapping[str, Any], window: Window) -> dict[str, Any]:
    meta = window.meta
    where = (meta.dataset, meta.recording, meta.device, meta.placement, meta.person)
    return {
        "trace": window_chart(window, figures["channels"], figures["units"], figures["rate_hz"]),
        "where": [part for part in where if part],
        "start_s": meta.start_s,
        "label": meta.label,
        "frames": [_thumbnail(frame) for frame in _some_evenly(window.frames)],
        "texts": meta.texts,
    }


def _some_evenly(frames: Sequence[bytes]) -> list[bytes]:
    """A few frames, evenly spread from first to last."""
    if len(frames) <= SHOWN_FRAMES:
        return list(frames)
    step = (len(frames) - 1) / (SHOWN_FRAMES - 1)
    return [frames[round(number * step)] for number in range(SHOWN_FRAMES)]


def _thumbnail(frame: bytes) -> dict[str, str | None]:
    """A small picture as the source of an image, or what is wrong with it."""
    try:
        picture = decode_frame(frame)
    except UnreadableFrameError as error:
        return {"source": None, "fault": str(error)}
    picture.thumbnail((2 * FRAME_PIXELS, FRAME_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return {"source": data_url(buffer.getvalue(), "image/jpeg"), "fault": None}


def _duration(hours: float) -> dict[str, str]:
    return {"hours of IMU": _number(hours)} if hours >= 1 else {"min of IMU": _number(60 * hours)}


def _size(size: int) -> dict[str, str]:
    unit, scale = ("GiB", 2**30) if size >= 2**30 else ("MiB", 2**20)
    return {f"{unit} on disk": _number(size / scale)}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
