"""The charts of the few-shot report, drawn by matplotlib as SVG without a display."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from primus_scale.evaluate.arm_table import ArmEntry, pairs_of
from primus_scale.evaluate.results import arms_of

CHART_BASELINES = ("scratch", "features")
ARM_OFFSET = 0.045  # horizontal distance of the arms at one k, so that their bars do not overlap


def accuracy_chart(results: Mapping[str, Any]) -> Figure:
    """Accuracy over labels a class, one line an arm, bars the 95 % intervals."""
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axis = figure.subplots()
    columns = list(results["few_shot"])
    arms = arms_of(results)
    for number, (arm, entry) in enumerate(arms.items()):
        positions = np.arange(len(columns)) + ARM_OFFSET * (number - (len(arms) - 1) / 2)
        rows = [results["few_shot"][k].get(arm) for k in columns]
        _draw_intervals(axis, positions, rows, entry, label=entry.title)
    axis.set_ylabel("accuracy on unseen people, %")
    _style(axis, columns)
    axis.legend(fontsize=8.5, frameon=False, loc="lower right")
    return figure


def paired_chart(results: Mapping[str, Any], arm: str) -> Figure:
    """Gains of ``arm`` over the main baselines, on the same labels, in points of accuracy.

    Without these over the first ones of the table. Random weights are in the table only: they are
    so far below that the chart could show nothing else.
    """
    figure = Figure(figsize=(8.6, 3.2), layout="constrained")
    axis = figure.subplots()
    columns = list(results["paired"])
    arms = arms_of(results)
    compared = pairs_of(arms)[arm]
    shown = [name for name in CHART_BASELINES if name in compared] or compared[:2]
    for number, baseline in enumerate(shown):
        offset = 2 * ARM_OFFSET * (number - (len(shown) - 1) / 2)
        positions = np.arange(len(columns)) + offset
        rows = [results["paired"][k].get(arm, {}).get(baseline) for k in columns]
        _draw_intervals(
            axis, positions, rows, arms[baseline], label=f"over {arms[baseline].title}", line=""
        )
    axis.axhline(0, color="#495057", linewidth=1)
    axis.set_ylabel("difference, points")
    _style(axis, columns)
    axis.legend(fontsize=8.5, frameon=False, ncols=len(shown), loc="upper right")
    axis.margins(y=0.25)
    return figure


def _draw_intervals(
    axis: Axes,
    positions: np.ndarray,
    rows: list[Mapping[str, float] | None],
    entry: ArmEntry,
    label: str,
    line: str = "-",
) -> None:
    held = [(x, row) for x, row in zip(positions, rows, strict=True) if row is not None]
    if not held:
        return
    mean = np.array([100 * row["mean"] for _, row in held])
    low = np.array([100 * row["low"] for _, row in held])
    high = np.array([100 * row["high"] for _, row in held])
    axis.errorbar(
        [x for x, _ in held],
        mean,
        yerr=[mean - low, high - mean],
        label=label,
        color=entry.colour,
        marker=entry.marker,
        markersize=5.5,
        linewidth=1.6,
        linestyle=line,
        elinewidth=1.2,
        capsize=2.5,
    )


def _style(axis: Axes, columns: list[str]) -> None:
    axis.set_xticks(range(len(columns)), columns)
    axis.set_xlabel("labelled windows a class (k)")
    axis.grid(axis="y", color="#dee2e6", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
