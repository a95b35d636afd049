"""Pictures of a run, drawn by matplotlib without a display, as arrays that TensorBoard takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.functional import normalize

from primus_scale.monitor.drawing import as_pixels, shown
from primus_scale.sample import CHANNELS

MOST_WINDOWS = 4  # more are too small to read
MOST_ROWS = 64
MOST_CLASS_LETTERS = 30  # of a name next to a confusion matrix


def draw_views(view0: torch.Tensor, view1: torch.Tensor, rate_hz: float) -> np.ndarray:
    """The first windows of a batch next to their augmented views.

    view0, view1 ``(B, 6, T)`` in SI units. Returns uint8 ``(height, width, 3)``.
    """
    count = min(MOST_WINDOWS, len(view0))
    figure = Figure(figsize=(12, 2.2 * count), layout="constrained")
    axes = figure.subplots(count, 4, squeeze=False, sharex=True)
    time_s = np.arange(view0.shape[-1]) / rate_hz
    for row in range(count):
        for column, (sensor, view) in enumerate(
            (sensor, view) for sensor in (0, 1) for view in (view0, view1)
        ):
            signals = view[row, 3 * sensor : 3 * sensor + 3].detach().float().cpu().numpy()
            axes[row, column].plot(time_s, signals.T, linewidth=0.8)
            axes[row, column].tick_params(labelsize=7)
        for left in (0, 2):  # the same scale for a window and its view, so that they compare
            axes[row, left].sharey(axes[row, left + 1])
            axes[row, left + 1].autoscale()
    titles = ("acceleration, m/s2", "acceleration, view 1", "rotation, rad/s", "rotation, view 1")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("s", fontsize=8)
    axes[0, 0].legend(CHANNELS[:3], fontsize=6, loc="upper right")
    axes[0, 2].legend(CHANNELS[3:], fontsize=6, loc="upper right")
    return as_pixels(figure)


def draw_similarity(rows: torch.Tensor, columns: torch.Tensor, title: str) -> np.ndarray:
    """Cosine similarities of matching rows and columns, both ``(B, D)``; matches are the diagonal.

    Returns uint8 ``(height, width, 3)``.
    """
    ours = normalize(rows[:MOST_ROWS].detach().float(), dim=-1)
    theirs = normalize(columns[:MOST_ROWS].detach().to(ours), dim=-1)
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow((ours @ theirs.T).cpu().numpy(), cmap="coolwarm", vmin=-1, vmax=1)
    figure.colorbar(image, ax=axis, label="cosine similarity")
    axis.set_title(shown(title.replace("_", " ")), fontsize=10)
    return as_pixels(figure)


def confusion_chart(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix: true classes down, predicted across, each row in percent of its windows.

    counts ``(classes, classes)``.
    """
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shown(name, MOST_CLASS_LETTERS) for name in classes]
    longest = max(map(len, names))
    size = (0.46 * len(names) + 0.9 + 0.07 * longest, 0.44 * len(names) + 0.9 + 0.05 * longest)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("true", fontsize=8)
    axis.set_title(title, fontsize=10)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            colour = "white" if value > 55 else "#222222"
            axis.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour
            )
    return figure
