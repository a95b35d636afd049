"""The charts of the data card, drawn by matplotlib without a display.

In the other modules of this folder a *figure* is a number; ``Figure`` is matplotlib's class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from primus_scale.monitor.drawing import shown
from primus_scale.sample import Window
from shards.card.stats import MODALITIES

BLUE, ORANGE, GREY, GREEN = "#1f6feb", "#d9480f", "#adb5bd", "#2b8a3e"
AXIS_COLOURS = (BLUE, ORANGE, GREEN)
MODALITY_COLOURS = dict(zip(MODALITIES, ("#0b2f75", BLUE, GREEN, GREY), strict=True))
STANDARD_GRAVITY = 9.80665  # m/s2
WIDTH = 8.6  # inches, of charts that fill the page
MOST_BARS = 25  # more cannot be read


def modality_chart(hours: Mapping[str, Mapping[str, float]]) -> Figure:
    """Hours of each data set, one bar each, by what is aligned with the IMU."""
    figure, axis = _empty_chart(0.8 + 0.42 * len(hours))
    left = np.zeros(len(hours))
    for kind in MODALITIES:
        values = np.array([row.get(kind, 0.0) for row in hours.values()])
        if values.any():
            axis.barh(
                range(len(hours)), values, left=left, color=MODALITY_COLOURS[kind], label=kind
            )
            left += values
    _label_bars(axis, left)
    _name_rows(axis, hours)
    axis.set_xlabel("hours")
    axis.legend(fontsize=8.5, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def bars_chart(values: Mapping[str, float], unit: str, colour: str = BLUE) -> Figure:
    """One bar a name, the longest first; where there are many, the rest is one bar."""
    bars = dict(list(values.items())[:MOST_BARS])
    if len(values) > MOST_BARS:
        rest = list(values.values())[MOST_BARS:]
        bars[f"{len(rest)} others together"] = sum(rest)
    figure, axis = _empty_chart(0.7 + 0.26 * len(bars))
    axis.barh(range(len(bars)), list(bars.values()), color=colour)
    _label_bars(axis, list(bars.values()))
    _name_rows(axis, bars)
    axis.set_xlabel(unit)
    return figure


def people_chart(hours: Mapping[str, float]) -> Figure:
    """Hours of each person in falling order: an even share for all, or most from a few."""
    figure, axis = _empty_chart(2.4)
    axis.bar(np.arange(1, len(hours) + 1), list(hours.values()), color=BLUE, width=0.9)
    axis.set_xlabel("people, in falling order")
    axis.set_ylabel("hours")
    axis.set_xlim(0.4, max(len(hours), 8) + 0.6)
    return figure


def histogram_chart(
    histogram: Mapping[str, Any], label: str, *, mark: float | None = None, log: bool = False
) -> Figure:
    """Where the windows lie on a scale: a row a placement, the darker the more of its windows.

    Orange lines are medians; ``mark`` is where they should lie. Rows stay apart where lines of many
    placements would hide one another.
    """
    names = list(histogram["counts"])
    figure, axis = _empty_chart(1.0 + 0.34 * len(names))
    edges = np.array(histogram["edges"])
    for row, name in enumerate(names):
        counts = np.array(histogram["counts"][name])[None]
        axis.pcolormesh(
            edges, [row - 0.42, row + 0.42], counts / max(counts.max(), 1), cmap="Blues"
        )
        median = np.clip(histogram["quantiles"][name][1], edges[0], edges[-1])
        axis.vlines(median, row - 0.42, row + 0.42, color=ORANGE, linewidth=2)
    if mark is not None:
        axis.axvline(mark, color="#212529", linewidth=1, linestyle=":")
    if log:
        axis.set_xscale("log")
    _name_rows(axis, names)
    axis.set_xlabel(f"{label} (orange: median)")
    return figure


def rates_chart(deviations: Mapping[str, Sequence[float]]) -> Figure:
    """Measured against nominal rate, in percent, a dot a sensor of a recording, by device."""
    figure, axis = _empty_chart(0.8 + 0.34 * len(deviations))
    for row, values in enumerate(deviations.values()):
        axis.plot(values, [row] * len(values), "o", color=BLUE, markersize=4.5, alpha=0.5)
    axis.axvspan(-1, 1, color=GREEN, alpha=0.08)
    axis.axvline(0, color="#212529", linewidth=0.8)
    _name_rows(axis, deviations)
    axis.set_xlabel("measured rate against the nominal one, % (green: within 1 %)")
    reach = max((abs(v) for values in deviations.values() for v in values), default=0.0)
    axis.set_xlim(-max(1.5, 1.1 * reach), max(1.5, 1.1 * reach))
    return figure


def lag_chart(lags: Sequence[Mapping[str, Any]]) -> Figure:
    """How far pictures lag behind the IMU, and with what confidence, a dot a recording."""
    figure, axis = _empty_chart(2.8)
    for flagged, colour, name in ((False, BLUE, "not flagged"), (True, ORANGE, "flagged")):
        rows = [lag for lag in lags if lag["flagged"] is flagged]
        if rows:
            axis.plot(
                [1000 * lag["lag_s"] for lag in rows],
                [lag["confidence"] for lag in rows],
                "o",
                color=colour,
                markersize=5,
                alpha=0.7,
                label=name,
            )
    axis.axvline(0, color="#212529", linewidth=0.8)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("picture later than the IMU by, ms")
    axis.set_ylabel("confidence")
    axis.legend(fontsize=8.5, frameon=False)
    return figure


def words_chart(words: Mapping[str, Any]) -> Figure:
    """Lengths of narrations in words."""
    figure, axis = _empty_chart(2.4)
    axis.stairs(words["counts"], words["edges"], fill=True, color=BLUE)
    axis.axvline(words["median"], color="#212529", linewidth=1, linestyle=":")
    axis.set_xlabel("words in a narration")
    axis.set_ylabel("narrations")
    return figure


def window_chart(
    window: Window, channels: Sequence[str], units: Sequence[str], rate_hz: float
) -> Figure:
    """The channels of a window over time, those of one unit in one plot."""
    kinds = list(dict.fromkeys(units))
    figure = Figure(figsize=(WIDTH / 2, 1.15 * len(kinds) + 0.35), layout="constrained")
    time_s = np.arange(window.imu.shape[1]) / rate_hz
    for axis, unit in zip(
        np.ravel(figure.subplots(len(kinds), 1, sharex=True)), kinds, strict=True
    ):
        rows = [row for row, other in enumerate(units) if other == unit]
        lines = []
        for number, row in enumerate(rows):
            colour = AXIS_COLOURS[number] if len(rows) <= len(AXIS_COLOURS) else None
            lines += axis.plot(time_s, window.imu[row], linewidth=0.9, color=colour)
        axis.set_ylabel(shown(unit, 16), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.margins(x=0)
        if len(rows) <= len(AXIS_COLOURS):
            names = [shown(channels[row], 16) for row in rows]
            axis.legend(lines, names, fontsize=6, frameon=False, loc="upper right", ncols=len(rows))
        _hide_frame(axis)
    axis.set_xlabel("s", fontsize=8)
    return figure


def _empty_chart(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, max(height, 1.2)), layout="constrained")
    axis = figure.subplots()
    axis.set_axisbelow(True)
    _hide_frame(axis)
    return figure, axis


def _hide_frame(axis: Axes) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _name_rows(axis: Axes, names: Iterable[str]) -> None:
    """Names of rows 0, 1, 2 … from the top down."""
    labels = [shown(name) for name in names]
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(max(len(labels), 1) - 0.5, -0.5)


def _label_bars(axis: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Write each bar's value at its end."""
    for row, value in enumerate(values):
        axis.annotate(
            f"{value:,.3g}" if value < 1000 else f"{value:,.0f}",
            (value, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.margins(x=0.1)
