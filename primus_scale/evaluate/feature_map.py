"""The test windows on a plane, by the encoder's features: who and what lies near what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import nn

from primus_scale.evaluate.classifiers import encode_features
from primus_scale.evaluate.draws import LabelledWindows, keyed_generator
from primus_scale.monitor.drawing import WIDE, shown

MOST_WINDOWS = 600  # more points would hide each other
_MOST_NAMED = 12  # in a legend
_LETTERS = 26  # of a name there
# Of Okabe and Ito's and of Tol's muted set; markers tell the same without colour.
_COLOURS = ("#0072b2", "#d55e00", "#117733", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#882255")
_MARKERS = "os^DvP*X<>hd"


def feature_map(encoder: nn.Module, test: LabelledWindows) -> dict[str, Any] | None:
    """The first two principal components of standardised features of the test windows, for JSON.

    x, y, label, person: one entry a window, at most ``MOST_WINDOWS`` by a fixed seed; label and
    person are rows of ``classes`` and of ``people``. explained: shares of the variance. None where
    the features are not finite or all the same, which the arms report.
    """
    chosen = np.arange(len(test))
    if len(test) > MOST_WINDOWS:
        chosen = np.sort(keyed_generator("map").choice(len(test), MOST_WINDOWS, replace=False))
    device = next(encoder.parameters()).device
    features = encode_features(encoder, test.imu[torch.from_numpy(chosen)].to(device))
    if len(chosen) < 3 or not np.isfinite(features).all():
        return None
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    if min(scaled.shape) < 2 or not scaled.any():
        return None
    components = PCA(2, svd_solver="full")
    x, y = components.fit_transform(scaled).T
    people, person = np.unique(test.person[chosen].astype(str), return_inverse=True)
    return {
        "x": np.round(x, 3).tolist(),
        "y": np.round(y, 3).tolist(),
        "label": test.label[chosen].tolist(),
        "person": person.tolist(),
        "people": people.tolist(),
        "explained": [round(float(share), 4) for share in components.explained_variance_ratio_],
    }


def map_chart(found: Mapping[str, Any], classes: Sequence[str], width: float = WIDE) -> Figure:
    """The map by activity and by person, beside each other or one above the other."""
    down, across = (1, 2) if width == WIDE else (2, 1)
    groups = ((found["label"], classes, "activity"), (found["person"], found["people"], "person"))
    longest = max(min(len(names), _MOST_NAMED) for _, names, _ in groups)
    height = 3.9 + 0.19 * -(-longest // 2)
    figure = Figure(figsize=(width, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (group, names, title) in zip(axes, groups, strict=True):
        _draw_groups(axis, found, np.array(group), names)
        axis.set_title(f"by {title}", fontsize=10)
        for set_label, share, order in (
            (axis.set_xlabel, found["explained"][0], "first"),
            (axis.set_ylabel, found["explained"][1], "second"),
        ):
            set_label(f"{order} component ({100 * share:.0f} %)", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def _draw_groups(
    axis: Axes, found: Mapping[str, Any], group: np.ndarray, names: Sequence[str]
) -> None:
    x, y = np.array(found["x"]), np.array(found["y"])
    named = len(names) <= _MOST_NAMED
    for number, name in enumerate(names):
        rows = group == number
        axis.plot(
            x[rows],
            y[rows],
            linestyle="",
            marker=_MARKERS[number % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            markersize=4,
            alpha=0.6,
            markeredgewidth=0,
            label=shown(name, _LETTERS) if named else None,
        )
    if named:
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.08),
            ncols=2,
            frameon=False,
            fontsize=8.5,
            handletextpad=0.1,
        )
    else:
        axis.text(
            0.5, -0.12, f"{len(names)} of them", transform=axis.transAxes, ha="center", fontsize=9
        )
