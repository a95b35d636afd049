"""The page of a study: one HTML file that needs no other. The page is ``templates/study.html``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from primus_scale.evaluate.arm_table import ARMS, FIXED_BASELINES
from primus_scale.evaluate.lead import headline_k
from primus_scale.evaluate.results import best_baselines, format_ends
from primus_scale.monitor.drawing import shown
from primus_scale.monitor.page import explain_failed_page, render_page
from primus_scale.storage.files import write_atomically
from primus_scale.study.records import COST, Record
from primus_scale.study.tables import STUDY_JSON, Pooled, compare_variants, cost_by_variant

PAGE = "study.html"
MOST_ROWS = 40  # of a chart; more would not be read
_ROW_IN = 0.32  # height of a variant's row in a chart, in inches


def write_page(
    out: Path,
    name: str,
    pooled: Pooled,
    records: Mapping[str, Record],
    failed: Mapping[str, str],
    reference: str,
) -> Path:
    """Write the page of a study called ``name``; returns its path.

    If it cannot be drawn, a line says so, and the results are kept.
    """
    page = out / PAGE
    try:
        with explain_failed_page(str(page), str(out / STUDY_JSON)):
            text = render_study(name, pooled, records, failed, reference)
    except ValueError as error:
        page.unlink(missing_ok=True)  # an earlier page is of other results
        print(error, file=sys.stderr)
    else:
        write_atomically(page, text)
    return page


def render_study(
    name: str,
    pooled: Pooled,
    records: Mapping[str, Record],
    failed: Mapping[str, str],
    reference: str,
) -> str:
    """The page as HTML. reference: the variant that others are compared with."""
    first = next(iter(pooled.values()), None)
    columns = list(first["few_shot"]) if first else []
    differences = compare_variants(pooled, reference)
    costs = cost_by_variant(records)
    return render_page(
        "primus_scale.study",
        "study.html",
        name=name,
        trials=len(records),
        columns=columns,
        k=headline_k(first) if first else "",
        headline=_headline(pooled) if first else None,
        accuracy=[_accuracy_row(variant, results) for variant, results in pooled.items()],
        gains=[_gain_row(variant, results) for variant, results in pooled.items()],
        accuracy_chart=_accuracy_chart(pooled) if first else None,
        gain_chart=_gain_chart(pooled) if first else None,
        reference=reference,
        differences=[
            {
                "variant": variant,
                "cells": [_percent(by_k[k], "+") if k in by_k else None for k in columns],
            }
            for variant, by_k in differences.items()
        ],
        difference_chart=_difference_chart(differences, reference, pooled),
        cost=[
            {"variant": variant, "cells": [cost[key] for key in COST]}
            for variant, cost in costs.items()
        ],
        cost_chart=_cost_chart(costs) if costs else None,
        failed=failed,
        made=_made(records),
    )


def _headline(pooled: Pooled) -> dict[str, Any] | None:
    """The variant with the highest accuracy, and its gain over the best fixed baseline."""
    k = headline_k(next(iter(pooled.values())))
    rows = {name: results["few_shot"].get(k, {}) for name, results in pooled.items()}
    held = {name: row["pretrained"] for name, row in rows.items() if "pretrained" in row}
    if not held:
        return None
    best = max(held, key=lambda name: held[name]["mean"])
    baseline = best_baselines(pooled[best]).get(k)
    gain = pooled[best]["paired"][k]["pretrained"][baseline] if baseline else None
    return {
        "variant": best,
        "labels": "all labels" if k == "all" else f"{k} label{'s' * (k != '1')} a class",
        "accuracy": _percent(held[best]),
        "people": held[best]["people"],
        "baseline": ARMS[baseline].title if baseline else "",
        "gain": gain and _percent(gain, "+"),
    }


def _accuracy_row(variant: str, results: Mapping[str, Any]) -> dict[str, Any]:
    cells = [row.get("pretrained") for row in results["few_shot"].values()]
    return {"variant": variant, "cells": [cell and _percent(cell) for cell in cells]}


def _gain_row(variant: str, results: Mapping[str, Any]) -> dict[str, Any]:
    best, cells = best_baselines(results), []
    for k in results["few_shot"]:
        gain = results["paired"][k]["pretrained"][best[k]] if k in best else None
        cells.append(gain and _percent(gain, "+") | {"baseline": ARMS[best[k]].title})
    return {"variant": variant, "cells": cells}


def _percent(interval: Mapping[str, float], sign: str = "") -> dict[str, Any]:
    mean, ends = format_ends(interval, sign)
    return {"mean": mean, "interval": ends}


def _accuracy_chart(pooled: Pooled) -> Figure | None:
    """The frozen encoder's accuracy at the headline's k, a row for each variant."""
    k = headline_k(next(iter(pooled.values())))
    found = {name: results["few_shot"].get(k, {}) for name, results in pooled.items()}
    rows = {name: row["pretrained"] for name, row in found.items() if "pretrained" in row}
    baselines = {
        ARMS[arm].title: interval["mean"]
        for arm, interval in next(iter(found.values())).items()
        if arm in FIXED_BASELINES
    }
    axis_label = f"accuracy of the frozen encoder on unseen people, %, k = {k}"
    best = max(baselines, key=lambda title: baselines[title], default="")
    return _interval_chart(rows, axis_label, {best: baselines[best]} if best else {})


def _gain_chart(pooled: Pooled) -> Figure | None:
    """The gain over the best fixed baseline at the headline's k, a row for each variant."""
    k = headline_k(next(iter(pooled.values())))
    rows = {}
    for name, results in pooled.items():
        if k in (best := best_baselines(results)):
            rows[name] = results["paired"][k]["pretrained"][best[k]]
    return _interval_chart(rows, f"gain over the best baseline, points, k = {k}", {"": 0.0})


def _difference_chart(
    differences: Mapping[str, Mapping[str, Any]], reference: str, pooled: Pooled
) -> Figure | None:
    """The difference to the reference at the headline's k, a row for each other variant."""
    if not differences:
        return None
    k = headline_k(pooled[reference])
    rows = {name: by_k[k] for name, by_k in differences.items() if k in by_k}
    return _interval_chart(rows, f"difference to {shown(reference)}, points, k = {k}", {"": 0.0})


def _interval_chart(
    rows: Mapping[str, Mapping[str, float]], label: str, lines: Mapping[str, float]
) -> Figure | None:
    """Means and intervals, one above the other; vertical lines for comparison. None where empty."""
    some = list(rows.items())[:MOST_ROWS]
    if not some:
        return None
    figure = Figure(figsize=(8.6, 1.3 + _ROW_IN * len(some)), layout="constrained")
    axis = figure.subplots()
    heights = np.arange(len(some))[::-1]
    mean = np.array([100 * row["mean"] for _, row in some])
    ends = np.array([[100 * row["low"], 100 * row["high"]] for _, row in some]).T
    axis.errorbar(
        mean,
        heights,
        xerr=np.abs(ends - mean),
        linestyle="",
        marker="o",
        markersize=5.5,
        capsize=2.5,
        color=ARMS["pretrained"].colour,
    )
    for title, value in lines.items():
        axis.axvline(100 * value, color="#495057", linewidth=1, linestyle="--", label=title)
    if any(lines):
        axis.legend(fontsize=8.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axis.set_yticks(heights, [shown(name) for name, _ in some])
    axis.set_ylim(-0.7, len(some) - 0.3)
    axis.set_xlabel(label)
    axis.grid(axis="x", color="#dee2e6", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


def _cost_chart(costs: Mapping[str, Mapping[str, float | None]]) -> Figure | None:
    """Seconds of pretraining, a bar for each variant."""
    some = [(name, seconds) for name, cost in costs.items() if (seconds := cost["pretraining_s"])]
    some = some[:MOST_ROWS]
    if not some:
        return None
    figure = Figure(figsize=(8.6, 1.0 + _ROW_IN * len(some)), layout="constrained")
    axis = figure.subplots()
    heights = np.arange(len(some))[::-1]
    axis.barh(heights, [seconds for _, seconds in some], color="#868e96", height=0.6)
    axis.set_yticks(heights, [shown(name) for name, _ in some])
    axis.set_xlabel("pretraining of one trial, s")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


def _made(records: Mapping[str, Record]) -> list[str]:
    """With which commits, on which machines the trials were done."""
    return sorted(
        {
            f"commit {str(record.get('commit') or 'unknown')[:7]}"
            f"{' with changes' if record.get('uncommitted_changes') else ''}, "
            f"{_machine(record.get('hardware', {}))}"
            for record in records.values()
        }
    )


def _machine(hardware: Mapping[str, Any]) -> str:
    gpus = hardware.get("gpus") or []
    return ", ".join(
        [
            str(hardware.get("processor", "unknown")),
            f"{hardware.get('cores', '?')} cores",
            *(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)),
        ]
    )
