"""The page of a study: one HTML file that needs no other, and the same as Markdown.

The pages are ``templates/study.html`` and ``templates/study.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from primus_scale.evaluate.arm_table import ARMS, FIXED_BASELINES
from primus_scale.evaluate.lead import headline_k
from primus_scale.evaluate.rank_chart import rank_chart
from primus_scale.evaluate.report import PAGE_FILE, render_both, wide_charts, write_files
from primus_scale.evaluate.report_tables import percent
from primus_scale.evaluate.results import best_baselines
from primus_scale.monitor.drawing import TwoWidths, two_widths
from primus_scale.monitor.page import explain_failed_page
from primus_scale.study.charts import (
    ablation_chart,
    cost_chart,
    interval_chart,
    sensitivity_chart,
    share_chart,
    share_cost_chart,
    trials_by_variant,
)
from primus_scale.study.lead import study_lead
from primus_scale.study.records import COST, Record
from primus_scale.study.tables import (
    STUDY_JSON,
    Pooled,
    compare_variants,
    cost_by_variant,
    rank_variants,
    term_effects,
)
from primus_scale.study.varied import Settings, shares_of_data, single_settings, term_sets

_PACKAGE = "primus_scale.study"


class Shown(NamedTuple):
    """What a study's page is of.

    trials: how many are finished. reference: the variant that others are compared with.
    """

    name: str
    trials: int
    pooled: Pooled
    records: Mapping[str, Record]
    settings: Mapping[str, Settings]
    failed: Mapping[str, str]
    reference: str


def write_page(out: Path, study: Shown) -> Path:
    """Write the page and its Markdown into the folder of a study; returns the page's path.

    ValueError where they cannot be drawn; an earlier page is kept then.
    """
    with explain_failed_page(str(out / PAGE_FILE), str(out / STUDY_JSON)):
        files = render_study(study)
    write_files(out, files)
    return out / PAGE_FILE


def render_study(study: Shown) -> dict[str, str]:
    """The page, its Markdown and the charts of the latter, by path."""
    shown = _gather(study)
    return render_both(_PACKAGE, "study", shown, wide_charts(shown))


def _gather(study: Shown) -> dict[str, Any]:
    """What the templates show; a chart without anything to show is None."""
    pooled, reference = study.pooled, study.reference
    first = next(iter(pooled.values()), None)
    k = headline_k(first) if first else ""
    differences = compare_variants(pooled, reference)
    sets = term_sets(study.settings, reference)
    effects = term_effects(pooled, sets) if sets else {}
    ranks = rank_variants(pooled, k)
    over = _common_baselines(pooled)
    accuracy = _at(k, {name: results["few_shot"] for name, results in pooled.items()})
    frozen = {name: row["pretrained"] for name, row in accuracy.items() if "pretrained" in row}
    return {
        "name": study.name,
        "trials": study.trials,
        "columns": list(first["few_shot"]) if first else [],
        "k": k,
        "reference": reference,
        "lead": study_lead(pooled, differences, effects, reference, study.records),
        "accuracy": [_accuracy_row(variant, results) for variant, results in pooled.items()],
        "gains": [_gains_over(variant, results, over) for variant, results in pooled.items()],
        "over": {k: ARMS[name].title for k, name in over.items()},
        "differences": _rows(differences, first),
        "effects": _rows(effects, first),
        "ranks": ranks and asdict(ranks),
        **_accuracy_charts(study, k, frozen, _at(k, differences)),
        "effect_chart": _intervals(
            _at(k, effects), f"what each family of terms adds, points, k = {k}", {"": 0.0}
        ),
        "rank_chart": two_widths(rank_chart, ranks) if ranks else None,
        **_cost(study),
        "failed": study.failed,
        "made": _made(study.records),
    }


def _accuracy_charts(
    study: Shown, k: str, frozen: Mapping[str, Any], differences: Mapping[str, Any]
) -> dict[str, TwoWidths | None]:
    """The charts of accuracy at the headline's ``k``; ``frozen`` is that of each variant."""
    pooled, reference = study.pooled, study.reference
    gains = {
        name: results["paired"][k]["pretrained"][best[k]]
        for name, results in pooled.items()
        if k in (best := best_baselines(results))
    }
    baseline = _best_baseline(pooled, k)
    sets = term_sets(study.settings, reference)
    lines = shares_of_data(study.settings, reference)
    panels = single_settings(study.settings, reference)
    panels = {
        key: points
        for key, points in panels.items()
        if any(point.variant in differences for point in points)
    }
    gain = f"gain over the best baseline, points, k = {k}"
    label = f"accuracy of the frozen encoder on the test people, %, k = {k}"
    change = f"difference to {reference}, points, k = {k}"
    drawn = lines and any(point.variant in frozen for line in lines.values() for point in line)
    return {
        "accuracy_chart": _intervals(frozen, label, dict([baseline]) if baseline else {}),
        "gain_chart": _intervals(gains, gain, {"": 0.0}),
        "difference_chart": _intervals(differences, change, {"": 0.0}),
        "ablation_chart": two_widths(ablation_chart, sets, gains, gain) if sets and gains else None,
        "sensitivity_chart": (
            two_widths(sensitivity_chart, panels, differences, reference) if panels else None
        ),
        "share_chart": (
            two_widths(share_chart, lines, frozen, baseline, f"accuracy, %, k = {k}")
            if drawn
            else None
        ),
    }


def _cost(study: Shown) -> dict[str, Any]:
    costs = cost_by_variant(study.records)
    lines = shares_of_data(study.settings, study.reference)
    return {
        "cost": [
            {"variant": variant, "cells": [cost[key] for key in COST]}
            for variant, cost in costs.items()
        ],
        "cost_chart": two_widths(cost_chart, trials_by_variant(study.records)) if costs else None,
        "share_cost_chart": two_widths(share_cost_chart, lines, costs) if lines and costs else None,
    }


def _intervals(rows: Mapping[str, Any], label: str, lines: Mapping[str, float]) -> TwoWidths | None:
    return two_widths(interval_chart, rows, label, lines) if rows else None


def _at(k: str, by_name: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What each name has at ``k``, without those that have nothing there."""
    return {name: by_k[k] for name, by_k in by_name.items() if k in by_k}


def _best_baseline(pooled: Pooled, k: str) -> tuple[str, float] | None:
    """Title and accuracy of the best fixed baseline; those of all variants are alike."""
    row = next(iter(pooled.values()))["few_shot"].get(k, {}) if pooled else {}
    found = {ARMS[arm].title: row[arm]["mean"] for arm in FIXED_BASELINES if arm in row}
    return max(found.items(), key=lambda pair: pair[1], default=None)


def _accuracy_row(variant: str, results: Mapping[str, Any]) -> dict[str, Any]:
    cells = [row.get("pretrained") for row in results["few_shot"].values()]
    return {"variant": variant, "cells": [cell and percent(cell) for cell in cells]}


def _common_baselines(pooled: Pooled) -> dict[str, str]:
    """The best baseline at each k, where it is that of all variants."""
    found: dict[str, set[str]] = {}
    for results in pooled.values():
        for k, name in best_baselines(results).items():
            found.setdefault(k, set()).add(name)
    return {k: next(iter(names)) for k, names in found.items() if len(names) == 1}


def _gains_over(
    variant: str, results: Mapping[str, Any], over: Mapping[str, str]
) -> dict[str, Any]:
    """Gains over the best baseline of each k, which is named where ``over`` has another or none."""
    best, cells = best_baselines(results), []
    for k in results["few_shot"]:
        gain = results["paired"][k]["pretrained"][best[k]] if k in best else None
        named = {} if best.get(k) == over.get(k) else {"baseline": ARMS[best[k]].title}
        cells.append(gain and percent(gain, "+") | named)
    return {"variant": variant, "cells": cells}


def _rows(
    by_name: Mapping[str, Mapping[str, Any]], first: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    columns: Sequence[str] = list(first["few_shot"]) if first else []
    return [
        {"variant": name, "cells": [percent(by_k[k], "+") if k in by_k else None for k in columns]}
        for name, by_k in by_name.items()
    ]


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
