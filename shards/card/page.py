"""The data card: one HTML page, and JSON, that say whether a shard folder is worth a cluster.

It opens with how much there is and what deserves a second look, then shows whose data it is, what
was refused and why, rates, gravity, rotation, clocks and narrations, and a dozen windows as they
are, pictures and text included.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from primus_scale.monitor.page import (
    as_image,
    embed_image,
    explain_failed_page,
    render_page,
    scrolling_table,
)
from primus_scale.sample import Window
from primus_scale.storage.folder import Folder, explain_write_errors
from primus_scale.teachers.base import UnreadableFrameError, decode_frame
from shards.card.attention import attention, failures, lags, rate_deviations, refusals
from shards.card.figures import (
    GREY,
    ORANGE,
    STANDARD_GRAVITY,
    bars_figure,
    histogram_figure,
    lag_figure,
    modality_figure,
    people_figure,
    rates_figure,
    window_figure,
    words_figure,
)
from shards.card.gate_tables import STYLE as GATE_STYLE
from shards.card.gate_tables import gate_sections
from shards.card.stats import collect_statistics

PAGE_NAME, JSON_NAME = "card.html", "card.json"
SHOWN_FRAMES = 4
FRAME_PIXELS = 168
MOST_ROWS = 15

STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(6rem, 1fr)); gap: .8rem;
         margin: 1.4rem 0; }
body > img { width: 100%; }
.tile { background: #f8f9fa; border-radius: 8px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.25; }
.tile span { color: #5c636a; font-size: .88rem; }
.attention { background: #fff4e6; border-left: 4px solid #d9480f; padding: .5rem 1rem; }
.calm { background: #ebfbee; border-left: 4px solid #2b8a3e; padding: .5rem 1rem; }
.window { border-top: 1px solid #dee2e6; padding: .9rem 0; display: flex; flex-wrap: wrap;
          gap: 1rem; }
.window > div { flex: 1 1 24rem; min-width: 0; }
.strip { display: flex; gap: 4px; } .strip img { width: calc(25% - 3px); border-radius: 4px; }
th.text, td.text { white-space: normal; text-align: left; }
"""


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
    """The page on ``figures`` (``stats.gather``) with ``windows`` to look at, as HTML."""
    ingest = figures["ingest"]
    title = f"Data card: {', '.join(figures['urls'])}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _lead(figures),
        _tiles(figures),
        _attention(figures),
        *_origin(figures),
        *_amounts(figures),
        *(_ingestion(figures, ingest) if ingest else ()),
        *(gate_sections(ingest["gates"]) if ingest else ()),
        *_signal(figures, ingest),
        *(_clocks(ingest) if ingest else ()),
        *_text(figures["text"]),
        *_examples(figures, windows),
    ]
    return render_page(title, sections, STYLE + GATE_STYLE)


def _lead(figures: Mapping[str, Any]) -> str:
    channels = ", ".join(
        f"{name} ({unit})" for name, unit in zip(figures["channels"], figures["units"], strict=True)
    )
    sampled = ""
    if figures["windows_read"] < figures["windows"]:
        sampled = (
            f" Distributions are of {figures['windows_read']:,} windows drawn evenly from "
            f"{figures['windows']:,}."
        )
    return (
        f'<p class="lead">{figures["windows"]:,} windows of {figures["window_s"]:g} s at '
        f"{figures['rate_hz']:g} Hz in {figures['kind']} shards.{sampled}</p>"
        f'<p class="quiet">Channels: {html.escape(channels)}.</p>'
    )


def _tiles(figures: Mapping[str, Any]) -> str:
    kinds = list(figures["hours_by_modality"].values())
    total = sum(sum(row.values()) for row in kinds)

    def share(word: str) -> str:
        return f"{100 * sum(v for row in kinds for k, v in row.items() if word in k) / total:.0f} %"

    tiles = {
        **_duration(figures["hours"]),
        "recordings": f"{figures['recordings']:,}",
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
    cells = (f'<div class="tile"><b>{v}</b><span>{k}</span></div>' for k, v in tiles.items())
    return f'<div class="tiles">{"".join(cells)}</div>'


def _attention(figures: Mapping[str, Any]) -> str:
    found = attention(figures)
    if not found:
        calm = (
            "Nothing here stands out."
            if figures["ingest"]
            else "Nothing in these windows stands out; what ingestion found is not known here, as "
            "there is no ingest.json."
        )
        return f'<p class="calm">{calm} Look at the windows below all the same.</p>'
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in found)
    return f'<div class="attention"><b>Look twice at</b><ul>{items}</ul></div>'


def _origin(figures: Mapping[str, Any]) -> Iterator[str]:
    """What the data sets are, in the words of whoever wrote the shards."""
    datasets: dict[str, Any] = {}
    for provenance in figures["provenance"]:
        datasets |= provenance.get("datasets", {})
    if datasets:
        items = "".join(
            f"<li><b>{html.escape(name)}</b>: {html.escape(str(note))}</li>"
            for name, note in datasets.items()
        )
        yield f"<ul>{items}</ul>"


def _amounts(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>How much, and of whom</h2>"
    yield as_image(modality_figure(figures["hours_by_modality"]), "hours by data set and modality")
    yield "<h2>Placements</h2>"
    yield as_image(bars_figure(figures["hours_by_placement"], "hours"), "hours by placement")
    yield "<h2>People</h2>"
    yield as_image(people_figure(figures["hours_by_person"]), "hours of each person")
    if set(figures["hours_by_label"]) != {"(none)"}:
        yield "<h2>Labels</h2>"
        yield as_image(bars_figure(figures["hours_by_label"], "hours"), "hours by label")


def _ingestion(figures: Mapping[str, Any], ingest: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>What was refused, and why</h2>"
    refused = refusals(ingest)
    if refused:
        hours = {reason: n * figures["window_s"] / 3600 for reason, n in refused.most_common()}
        yield as_image(bars_figure(hours, "hours of planned windows", ORANGE), "hours by reason")
    else:
        yield "<p>No planned window was refused.</p>"
    failed = failures(ingest)
    if failed:
        yield "<h2>Recordings that could not be read</h2>"
        yield _table(
            ("recording", "why"),
            [(name, error) for name, error in failed[:MOST_ROWS]],
        )
        yield _and_more(failed)
    if unread := ingest["unread"]:
        yield "<h2>What was not read</h2>"
        yield _table(("in the source",), [(line,) for line in unread[:MOST_ROWS]])
        yield _and_more(unread)
    notes = [(r["name"], note) for r in ingest["recordings"] for note in r["notes"]]
    if notes:
        yield "<h2>Notes of the reader</h2>"
        yield _table(("recording", "note"), notes[:MOST_ROWS])
        yield _and_more(notes)


def _signal(figures: Mapping[str, Any], ingest: Mapping[str, Any] | None) -> Iterator[str]:
    if figures["gravity"]:
        yield "<h2>Gravity</h2>"
        yield (
            '<p class="quiet">Median of |acceleration| in each window; the dotted line is one g. '
            "A peak beside it speaks of wrong units or calibration. The bins at both ends hold all "
            "that lies beyond.</p>"
        )
        yield as_image(
            histogram_figure(
                figures["gravity"], "median |acceleration|, m/s2", mark=STANDARD_GRAVITY
            ),
            "histogram of gravity by placement",
        )
    if figures["gyroscope"]:
        yield "<h2>Rotation</h2>"
        yield (
            '<p class="quiet">Root mean square of the rotation rate in each window. A phone '
            "at rest has about 0.01 rad/s, walking about 1; a factor of 57 off means degrees.</p>"
        )
        yield as_image(
            histogram_figure(figures["gyroscope"], "rotation, rad/s", log=True),
            "histogram of rotation by placement",
        )
    deviations = rate_deviations(ingest) if ingest else {}
    if deviations:
        yield "<h2>Sampling rates</h2>"
        yield as_image(rates_figure(deviations), "measured against nominal rates")


def _clocks(ingest: Mapping[str, Any]) -> Iterator[str]:
    reports = lags(ingest)
    if not reports:
        return
    yield "<h2>Are pictures and IMU on one clock?</h2>"
    yield (
        '<p class="quiet">The lag at which the gyroscope best explains the motion of the picture. '
        "Dots low down are guesses: too little rotation, texture, or film.</p>"
    )
    yield as_image(lag_figure(reports), "lag and confidence")


def _text(text: Mapping[str, Any] | None) -> Iterator[str]:
    if not text:
        return
    yield "<h2>Narrations</h2>"
    yield (
        f"<p>{text['narrations']:,} narrations, {text['distinct']:,} distinct; median length "
        f"{text['words']['median']:g} words.</p>"
    )
    yield as_image(words_figure(text["words"]), "lengths of narrations")
    verbs = {verb: float(count) for verb, count in text["verbs"]}
    yield "<h2>Most frequent verbs</h2>"
    yield as_image(bars_figure(verbs, "narrations", GREY), "verbs")
    if text["repeated"]:
        yield "<h2>Narrations that repeat most</h2>"
        rows = [(sentence, f"{count:,}") for sentence, count in text["repeated"][:8]]
        yield _table(("narration", "times"), rows)


def _examples(figures: Mapping[str, Any], windows: Sequence[Window]) -> Iterator[str]:
    yield "<h2>A dozen windows</h2>"
    for window in windows:
        meta = window.meta
        where = " · ".join(
            html.escape(part)
            for part in (meta.dataset, meta.recording, meta.device, meta.placement, meta.person)
            if part
        )
        label = f" · <b>{html.escape(meta.label)}</b>" if meta.label else ""
        texts = "".join(f"<li>{html.escape(text)}</li>" for text in meta.texts)
        trace = window_figure(window, figures["channels"], figures["units"], figures["rate_hz"])
        yield (
            f'<div class="window"><div>{as_image(trace, "channels over time")}</div>'
            f'<div><p class="quiet">{where} · at {meta.start_s:.2f} s{label}</p>'
            f'<div class="strip">{"".join(map(_thumbnail, _spread(window.frames)))}</div>'
            f"{f'<ul>{texts}</ul>' if texts else ''}</div></div>"
        )


def _spread(frames: Sequence[bytes]) -> list[bytes]:
    """A few frames, evenly spread from first to last."""
    if len(frames) <= SHOWN_FRAMES:
        return list(frames)
    step = (len(frames) - 1) / (SHOWN_FRAMES - 1)
    return [frames[round(number * step)] for number in range(SHOWN_FRAMES)]


def _thumbnail(frame: bytes) -> str:
    try:
        picture = decode_frame(frame)
    except UnreadableFrameError as error:
        return f'<span class="quiet">{html.escape(str(error))}</span>'
    picture.thumbnail((2 * FRAME_PIXELS, FRAME_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return embed_image(buffer.getvalue(), "image/jpeg", "frame")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th class="text">{name}</th>' for name in heads)
    body = "".join(
        "<tr>" + "".join(f'<td class="text">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return scrolling_table(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>")


def _and_more(rows: Sequence[object]) -> str:
    more = len(rows) - MOST_ROWS
    return f'<p class="quiet">and {more:,} more, in {JSON_NAME}</p>' if more > 0 else ""


def _duration(hours: float) -> dict[str, str]:
    return {"hours of IMU": _number(hours)} if hours >= 1 else {"min of IMU": _number(60 * hours)}


def _size(size: int) -> dict[str, str]:
    unit, scale = ("GiB", 2**30) if size >= 2**30 else ("MiB", 2**20)
    return {f"{unit} on disk": _number(size / scale)}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
