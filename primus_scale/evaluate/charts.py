"""The charts of the few-shot report, drawn by matplotlib as SVG without a display.

Each is drawn in two widths (``drawing.two_widths``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from primus_scale.evaluate.arm_table import ArmEntry, pairs_of
from primus_scale.evaluate.people import accuracy_of_people
from primus_scale.evaluate.results import arms_of, format_interval
from primus_scale.monitor.drawing import WIDE, shown, style_axis

ARM_OFFSET = 0.05  # horizontal distance of the arms at one k, so that their bars do not overlap
_ROW = 0.19  # height of a row of the forest plot
_STRIP = 0.5  # height of an arm's strip of people
_GREY = "#495057"


def accuracy_chart(results: Mapping[str, Any], width: float = WIDE) -> Figure:
    """Accuracy over labels a class, one line an arm, bars the 95 % intervals."""
    columns, arms = list(results["few_shot"]), arms_of(results)
    across = 3 if width == WIDE else 1
    rows = -(-len(arms) // across)
    figure = _figure(width, (4.6 if width == WIDE else 3.4) + 0.2 * rows)
    axis = figure.subplots()
    for number, (arm, entry) in enumerate(arms.items()):
        positions = np.arange(len(columns)) + ARM_OFFSET * (number - (len(arms) - 1) / 2)
        held = [
            (position, results["few_shot"][k][arm])
            for position, k in zip(positions, columns, strict=True)
            if arm in results["few_shot"][k]
        ]
        _draw_line(axis, held, entry)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_xlabel("labelled windows a class (k)")
    axis.set_ylabel("accuracy on the test people, %")
    style_axis(axis, "y")
    figure.legend(
        loc="outside lower center", ncols=across, frameon=False, handlelength=4.2, numpoints=1
    )
    return figure


def forest_chart(results: Mapping[str, Any], arm: str, width: float = WIDE) -> Figure:
    """Gains of ``arm`` over every baseline at every k, with their 95 % intervals, in points.

    A block for each baseline, a row for each k. A mark is full where the interval is on one side
    of 0. The wide chart also has the figures.
    """
    arms, paired = arms_of(results), results["paired"]
    blocks = [
        (arms[name].title, [(k, row[arm][name]) for k, row in paired.items() if name in row[arm]])
        for name in pairs_of(arms)[arm]
        if any(name in row.get(arm, {}) for row in paired.values())
    ]
    rows = sum(1 + len(block) for _, block in blocks)
    figure = _figure(width, 0.7 + _ROW * rows)
    axis = figure.subplots()
    ticks: list[tuple[float, str]] = []
    top = 0.0
    for title, block in blocks:
        _name_row(axis, top, f"over {title}")
        for number, (k, gain) in enumerate(block, start=1):
            _draw_gain(axis, top - number, gain, arms[arm].colour, figures=width == WIDE)
            ticks.append((top - number, f"k = {k}"))
        top -= 1 + len(block)
    axis.axvline(0, color=_GREY, linewidth=1)
    axis.set_yticks(*zip(*ticks, strict=True))
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(top + 0.4, 0.7)
    axis.set_xlabel("difference in accuracy, points")
    style_axis(axis, "x")
    return figure


def people_chart(results: Mapping[str, Any], k: str, width: float = WIDE) -> Figure:
    """Accuracy on each test person at ``k``: a strip for each arm, a dot for each person.

    The person whom the first arm serves worst is a diamond in all strips.
    """
    found, arms = accuracy_of_people(results, k), arms_of(results)
    people = next(iter(found.values()))
    worst = min(people, key=lambda person: people[person])
    figure = _figure(width, 1.1 + _STRIP * len(found))
    axis = figure.subplots()
    for number, (arm, of_person) in enumerate(found.items()):
        others = [100 * value for person, value in of_person.items() if person != worst]
        style: dict[str, Any] = {"color": arms[arm].colour, "linestyle": "", "alpha": 0.65}
        axis.plot(others, _spread(others, -number), marker="o", markersize=5, **style)
        if worst in of_person:
            position = 100 * of_person[worst]
            axis.plot(position, -number, "D", markersize=6, color="white", markeredgecolor="black")
        mean = 100 * results["few_shot"][k][arm]["mean"]
        axis.plot(mean, -number, "|", markersize=15, markeredgewidth=2, color="black")
        _name_row(axis, 0.4 - number, arms[arm].title)
    axis.set_yticks([])
    axis.set_ylim(0.4 - len(found), 0.7)
    axis.set_xlabel(f"accuracy at k = {k}, %")
    style_axis(axis, "x")
    axis.spines["left"].set_visible(False)
    keys = [
        Line2D([], [], color=_GREY, marker="o", linestyle="", markersize=5, label="a person"),
        Line2D([], [], color="black", marker="|", linestyle="", markersize=11, label="all windows"),
        Line2D([], [], color="white", marker="D", markeredgecolor="black", linestyle=""),
    ]
    keys[-1].set_label(f"{shown(worst, 20)}, lowest in the first strip")
    figure.legend(
        handles=keys, loc="outside lower center", ncols=3 if width == WIDE else 1, frameon=False
    )
    return figure


def _draw_line(
    axis: Axes, held: Sequence[tuple[float, Mapping[str, float]]], entry: ArmEntry
) -> None:
    if not held:
        return
    mean, low, high = (
        np.array([100 * row[end] for _, row in held]) for end in ("mean", "low", "high")
    )
    main = entry.role in ("pretrained", "own")
    axis.errorbar(
        [position for position, _ in held],
        mean,
        yerr=[mean - low, high - mean],
        label=shown(entry.title),
        color=entry.colour,
        marker=entry.marker,
        markersize=8 if main else 7,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=2.2 if main else 1.3,
        linestyle=entry.line,
        elinewidth=1.1,
        zorder=3 if main else 2,
    )


def _draw_gain(
    axis: Axes, height: float, gain: Mapping[str, float], colour: str, figures: bool
) -> None:
    mean, low, high = (100 * gain[end] for end in ("mean", "low", "high"))
    shows = low > 0 or high < 0
    axis.plot([low, high], [height, height], color=colour, linewidth=1.5)
    axis.plot(
        mean,
        height,
        "o",
        color=colour,
        markersize=5.5,
        markerfacecolor=colour if shows else "white",
    )
    if figures:
        axis.text(
            1.01,
            height,
            format_interval(gain, "+"),
            transform=axis.get_yaxis_transform(),
            va="center",
            color="black" if shows else _GREY,
        )


def _name_row(axis: Axes, height: float, title: str) -> None:
    """A title at the left above a row."""
    axis.text(
        0.005,
        height,
        shown(title),
        transform=axis.get_yaxis_transform(),
        va="center",
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        zorder=4,
    )


def _spread(values: Sequence[float], height: float) -> np.ndarray:
    """Heights of dots around ``height``, so that equal values do not hide each other."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return height + 0.09 * (order % 3 - 1)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")
