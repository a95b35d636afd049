"""The charts of a study's page. Each is drawn in two widths (``drawing.two_widths``)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from primus_scale.evaluate.arm_table import ARMS
from primus_scale.monitor.drawing import WIDE, shown, style_axis
from primus_scale.study.varied import Point, TermSets, describe_value

MOST_ROWS = 40  # of a chart; more would not be read
_ROW = 0.32  # height of a variant's row, in inches
_GREY, _LIGHT = "#495057", "#adb5bd"
_COLOUR = ARMS["pretrained"].colour
# Of Okabe and Ito; markers and lines tell the same without colour.
_LINES: tuple[tuple[str, str, str], ...] = (
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#117733", "^", "-."),
    ("#cc79a7", "D", ":"),
    ("#000000", "v", "-"),
    ("#e69f00", "P", "--"),
)

Interval = Mapping[str, float]


def interval_chart(
    rows: Mapping[str, Interval], label: str, lines: Mapping[str, float], width: float = WIDE
) -> Figure:
    """Means and intervals, one above the other; lines: for comparison, by a title or none."""
    some = list(rows.items())[:MOST_ROWS]
    figure = Figure(figsize=(width, 1.3 + _row(width) * len(some)), layout="constrained")
    axis = figure.subplots()
    heights = np.arange(len(some))[::-1]
    for height, (_, interval) in zip(heights, some, strict=True):
        _draw_interval(axis, interval, height, _COLOUR)
    for title, value in lines.items():
        axis.axvline(100 * value, color=_GREY, linewidth=1, linestyle="--", label=title)
    if any(lines):
        figure.legend(loc="outside upper center", frameon=False)
    _name_rows(axis, heights, [name for name, _ in some], width)
    axis.set_xlabel(_wrapped(label, width))
    style_axis(axis, "x")
    return figure


def ablation_chart(
    sets: TermSets, gains: Mapping[str, Interval], label: str, width: float = WIDE
) -> Figure:
    """A bar for each set of terms, with dots for the families that it has."""
    names = [name for name in sets.on if name in gains]
    names = sorted(names, key=lambda name: (len(sets.on[name]), gains[name]["mean"]))[-MOST_ROWS:]
    families = list(sets.families)
    across = 0.34 * len(families)
    tall = 1.6 + 0.29 * len(names)
    figure = Figure(figsize=(width, tall), layout="constrained")
    dots, bars = figure.subplots(
        1, 2, sharey=True, width_ratios=(across, max(width - across - 0.4, 1.6))
    )
    heights = np.arange(len(names))
    for column in range(len(families)):
        dots.plot([column] * len(names), heights, "o", markersize=8, color="#e9ecef", zorder=1)
    for height, name in zip(heights, names, strict=True):
        held = [column for column, family in enumerate(families) if family in sets.on[name]]
        dots.plot(held, [height] * len(held), "o", markersize=8, color="black", zorder=2)
        gain = gains[name]
        full = gain["low"] > 0 or gain["high"] < 0
        bars.barh(
            height,
            100 * gain["mean"],
            height=0.6,
            color=_COLOUR if full else "white",
            edgecolor=_COLOUR,
        )
        bars.plot([100 * gain["low"], 100 * gain["high"]], [height] * 2, color="black", linewidth=1)
    dots.set_xticks(range(len(families)), [shown(name, 24) for name in families], rotation=90)
    dots.xaxis.tick_top()
    dots.tick_params(length=0)
    dots.set_yticks([])
    dots.set_xlim(-0.6, len(families) - 0.4)
    dots.set_ylim(-0.7, len(names) - 0.3)
    for side in ("top", "right", "left", "bottom"):
        dots.spines[side].set_visible(False)
    bars.axvline(0, color=_GREY, linewidth=1)
    bars.tick_params(axis="y", length=0)
    bars.set_xlabel(_wrapped(label, width - across))
    style_axis(bars, "x")
    bars.spines["left"].set_visible(False)
    return figure


def sensitivity_chart(
    panels: Mapping[str, Sequence[Point]],
    differences: Mapping[str, Interval],
    reference: str,
    width: float = WIDE,
) -> Figure:
    """A panel for each setting: the difference to the reference, which is at 0, by its value."""
    across = 3 if width == WIDE else 1
    down = -(-len(panels) // across)
    figure = Figure(figsize=(width, 0.4 + 2.15 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axis, (key, points) in zip(axes, panels.items(), strict=False):
        held = [
            point for point in points if point.variant == reference or point.variant in differences
        ]
        means = []
        for place, point in enumerate(held):
            if point.variant == reference:
                axis.plot(place, 0, "D", color="black", markersize=6, zorder=3)
                means.append(0.0)
                continue
            interval = differences[point.variant]
            means.append(100 * interval["mean"])
            axis.plot([place] * 2, [100 * interval["low"], 100 * interval["high"]], color=_COLOUR)
            axis.plot(place, means[-1], "o", color=_COLOUR, markersize=6)
        if all(isinstance(point.value, int | float) for point in held):
            axis.plot(range(len(held)), means, color=_LIGHT, linewidth=1, zorder=0)
        axis.axhline(0, color=_GREY, linewidth=0.8, linestyle="--", zorder=0)
        axis.set_xticks(range(len(held)), [shown(describe_value(p.value), 14) for p in held])
        axis.set_xlim(-0.5, len(held) - 0.5)
        axis.set_title(shown(key.removeprefix("objective."), 30), fontsize=10)
        style_axis(axis, "y")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.supylabel("difference, points", fontsize=10)
    return figure


def share_chart(
    lines: Mapping[str, Sequence[Point]],
    accuracy: Mapping[str, Interval],
    baseline: tuple[str, float] | None,
    label: str,
    width: float = WIDE,
) -> Figure:
    """Accuracy over the share of the pretraining data, a line for each way to choose it."""
    figure = Figure(figsize=(width, 3.8), layout="constrained")
    axis = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        colour, marker, style = _LINES[number % len(_LINES)]
        held = [point for point in points if point.variant in accuracy]
        found = [accuracy[point.variant] for point in held]
        mean, low, high = (np.array([100 * one[end] for one in found]) for end in _ENDS)
        # Side by side, so that equal shares do not hide each other.
        place = [100 * point.value * 1.04 ** (number - (len(lines) - 1) / 2) for point in held]
        axis.errorbar(
            place,
            mean,
            yerr=[mean - low, high - mean],
            color=colour,
            marker=marker,
            linestyle=style,
            label=shown(name),
        )
    if baseline is not None:
        title, value = baseline
        axis.axhline(100 * value, color=_GREY, linewidth=1, linestyle=":", label=shown(title))
    _share_axis(axis, lines)
    axis.set_ylabel(_wrapped(label, width))
    style_axis(axis, "y")
    figure.legend(loc="outside lower center", ncols=3 if width == WIDE else 1, frameon=False)
    return figure


_ENDS = ("mean", "low", "high")
_MEASURES = {"pretraining_s": "pretraining of a trial, s", "peak_memory_mb": "peak memory, MB"}


def share_cost_chart(
    lines: Mapping[str, Sequence[Point]],
    costs: Mapping[str, Mapping[str, float | None]],
    width: float = WIDE,
) -> Figure:
    """Seconds and memory of a trial over the share of the data, a line for each set of terms."""
    figure, axes = _beside(width, 3.6)
    for axis, (measure, title) in zip(axes, _MEASURES.items(), strict=True):
        for number, (name, points) in enumerate(lines.items()):
            colour, marker, style = _LINES[number % len(_LINES)]
            held = [
                (100 * point.value, cost)
                for point in points
                if (cost := costs.get(point.variant, {}).get(measure)) is not None
            ]
            label = shown(name) if axis is axes[0] else None
            axis.plot(
                *zip(*held, strict=True), color=colour, marker=marker, linestyle=style, label=label
            )
        _share_axis(axis, lines)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(title)
        style_axis(axis, "y")
    figure.legend(loc="outside lower center", ncols=3 if width == WIDE else 1, frameon=False)
    return figure


def cost_chart(
    trials: Mapping[str, Sequence[Mapping[str, float | None]]], width: float = WIDE
) -> Figure:
    """Seconds and memory by variant: a bar to the mean, a dot for each trial."""
    some = list(trials.items())[:MOST_ROWS]
    figure, axes = _beside(width, 1.0 + _row(width) * len(some), sharey=width == WIDE)
    heights = np.arange(len(some))[::-1]
    for axis, (measure, title) in zip(axes, _MEASURES.items(), strict=True):
        for height, (_, costs) in zip(heights, some, strict=True):
            held = [of for cost in costs if (of := cost.get(measure)) is not None]
            if held:
                axis.barh(height, np.mean(held), color=_LIGHT, height=0.6)
                axis.plot(held, [height] * len(held), "o", color="black", markersize=3)
        _name_rows(axis, heights, [name for name, _ in some], width)
        axis.set_xlabel(title)
        style_axis(axis, "x")
    return figure


def _beside(width: float, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Two axes beside each other, or one above the other where the chart is narrow."""
    down, across = (1, 2) if width == WIDE else (2, 1)
    figure = Figure(figsize=(width, height * down), layout="constrained")
    return figure, list(figure.subplots(down, across, squeeze=False, sharey=sharey).ravel())


def _draw_interval(axis: Axes, interval: Interval, height: float, colour: str) -> None:
    axis.plot([100 * interval["low"], 100 * interval["high"]], [height] * 2, color=colour)
    axis.plot(100 * interval["mean"], height, "o", color=colour, markersize=5.5)


def _row(width: float) -> float:
    """The height of a row, in inches; where it is narrow, the row has its name above it."""
    return _ROW if width == WIDE else 1.5 * _ROW


def _name_rows(axis: Axes, heights: np.ndarray, names: Sequence[str], width: float) -> None:
    axis.set_ylim(-0.7, len(names) - 0.3)
    if width == WIDE:
        axis.set_yticks(heights, [shown(name) for name in names])
        return
    axis.set_yticks([])
    for height, name in zip(heights, names, strict=True):
        place = axis.get_yaxis_transform()
        axis.text(0.01, height + 0.4, shown(name), transform=place, va="center", fontsize=9)


def _wrapped(label: str, width: float) -> str:
    """A label in lines as long as the chart is wide."""
    return textwrap.fill(label, int(9.5 * width))


def _share_axis(axis: Axes, lines: Mapping[str, Sequence[Point]]) -> None:
    shares = sorted({point.value for points in lines.values() for point in points})
    axis.set_xscale("log")
    axis.set_xticks([100 * share for share in shares], [f"{100 * share:g}" for share in shares])
    axis.minorticks_off()
    axis.set_xlabel("share of the pretraining data, %")


def trials_by_variant(records: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The cost of each trial, by variant."""
    found: dict[str, list[Any]] = {}
    for record in records.values():
        found.setdefault(record["variant"], []).append(record["cost"])
    return found
