"""The critical-difference diagram: competitors by mean rank, bars over those that do not differ."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from primus_scale.evaluate.ranks import Ranks
from primus_scale.monitor.drawing import WIDE, shown

_ROW = 0.26  # height of a name, in inches
_GREY, _BLUE = "#495057", "#0072b2"
_BAR: dict[str, Any] = {"color": _BLUE, "linewidth": 4, "solid_capstyle": "butt"}


def rank_chart(ranks: Ranks, width: float = WIDE) -> Figure:
    """Demsar's diagram where it is wide; names in rows, each at its rank, where it is narrow."""
    return _diagram(ranks) if width == WIDE else _rows(ranks, width)


def _diagram(ranks: Ranks) -> Figure:
    """Ranks along the top, the best at the right; a name hangs at each, half of them at a side."""
    names, number = list(ranks.mean), len(ranks.mean)
    deep = (number + 1) // 2
    bars = ranks.groups()
    height = 0.9 + 0.14 * len(bars) + _ROW * deep
    figure = Figure(figsize=(WIDE, height), layout="constrained")
    axis = figure.subplots()
    first = -0.35 * len(bars) - 0.7
    for place, name in enumerate(names):
        best = place < deep  # at the right
        row = first - 0.65 * (place if best else number - 1 - place)
        edge = 1 - 0.03 * number if best else number + 0.03 * number
        at = ranks.mean[name]
        axis.plot([at, at, edge], [0, row, row], color=_GREY, linewidth=1)
        axis.annotate(
            f"{shown(name, 28)}  {at:.2f}" if not best else f"{at:.2f}  {shown(name, 28)}",
            (edge, row),
            xytext=(5 if best else -5, 0),
            textcoords="offset points",
            va="center",
            ha="left" if best else "right",
        )
    for level, group in enumerate(bars):
        ends = [ranks.mean[group[0]] - 0.03, ranks.mean[group[-1]] + 0.03]
        axis.plot(ends, [-0.35 * (level + 1)] * 2, **_BAR)
    _scale(axis, number)
    axis.plot([1, 1 + ranks.critical], [1.5, 1.5], color="black", linewidth=1.5, marker="|")
    axis.annotate(
        f"critical difference {ranks.critical:.2f}",
        (min(1 + ranks.critical, number), 1.5),
        xytext=(-8, 3),
        textcoords="offset points",
        ha="left" if ranks.critical < number - 1 else "right",
        va="bottom",
    )
    # Room for the names, which are about as long at both sides.
    axis.set_xlim(number * 1.03 + 0.62 * number, 1 - 0.03 * number - 0.62 * number)
    axis.set_ylim(first - 0.65 * deep, 2.6)
    axis.set_axis_off()
    return figure


def _scale(axis: Axes, number: int) -> None:
    axis.plot([1, number], [0, 0], color="black", linewidth=1.2)
    for mark in range(1, number + 1):
        axis.plot([mark, mark], [0, 0.18], color="black", linewidth=1.2)
        axis.text(mark, 0.3, str(mark), ha="center", va="bottom", color="black")


def _rows(ranks: Ranks, width: float) -> Figure:
    names, number = list(ranks.mean), len(ranks.mean)
    figure = Figure(figsize=(width, 0.9 + 1.6 * _ROW * number), layout="constrained")
    axis = figure.subplots()
    rows = {name: -place for place, name in enumerate(names)}
    for name, row in rows.items():
        axis.plot(ranks.mean[name], row, "o", color=_BLUE)
        text = f"{shown(name, 30)}  {ranks.mean[name]:.2f}"
        axis.text(0.0, row + 0.28, text, transform=axis.get_yaxis_transform(), va="center")
    for level, group in enumerate(ranks.groups()):
        at = number + 0.35 * (level + 1)
        axis.plot([at, at], [rows[group[0]] + 0.2, rows[group[-1]] - 0.2], **_BAR)
    axis.set_xlabel(f"mean rank; critical difference {ranks.critical:.2f}")
    axis.set_xticks(range(1, number + 1))
    axis.set_yticks([])
    axis.set_ylim(-number + 0.5, 0.7)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    return figure
