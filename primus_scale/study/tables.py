"""The tables of a study: accuracy and gain by variant, what failed, and what it cost.

``study.md`` and ``study.json`` follow from the answers of the finished trials alone. So they are
the same whether or not a study was interrupted. Times differ from run to run: ``cost.md``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from primus_scale.evaluate import pool_reports
from primus_scale.evaluate.arm_table import ARMS, FIXED_BASELINES
from primus_scale.evaluate.command import RESULTS_FILE
from primus_scale.evaluate.ranks import Ranks, rank_competitors
from primus_scale.evaluate.results import (
    best_baselines,
    format_interval,
    gain_of,
    mean_gain_of,
    records_by_arm,
)
from primus_scale.evaluate.run_folder import REPORT_FOLDER
from primus_scale.storage.files import write_atomically
from primus_scale.study.plan import Trial
from primus_scale.study.records import COST, Record, write_all
from primus_scale.study.varied import TermSets

STUDY_JSON, STUDY_TABLE, COST_TABLE = "study.json", "study.md", "cost.md"
MOST_RANKED = 20  # variants; a diagram of more could not be read

Pooled = Mapping[str, Mapping[str, Any]]  # results of each variant, over its splits and seeds


def pool_variants(out: Path, trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Pool the answers of each variant's finished trials into ``VARIANT/few_shot.json``.

    Variants without a finished trial are left out. ValueError as ``pool_reports``.
    """
    pooled = {}
    for name in dict.fromkeys(trial.variant for trial in trials):
        paths = [
            trial.folder(out) / REPORT_FOLDER / RESULTS_FILE
            for trial in trials
            if trial.variant == name
        ]
        if paths:
            path = pool_reports(paths, out / name)
            pooled[name] = json.loads(path.read_text(encoding="utf-8"))
    return pooled


def compare_variants(pooled: Pooled, reference: str) -> dict[str, dict[str, Any]]:
    """The frozen encoder of each variant against that of ``reference``, by variant and k.

    Differences in accuracy on the same people, labels and pretraining seeds, with intervals over
    people (``results.assemble``). Variants, and k, that share none with it are left out.
    """
    frozen = {name: _frozen_records(results) for name, results in pooled.items()}
    against = frozen.get(reference, {})
    found: dict[str, dict[str, Any]] = {}
    for name, by_k in frozen.items():
        if name == reference:
            continue
        shared = {k: of for k, of in by_k.items() if of.keys() & against.get(k, {}).keys()}
        if shared:
            found[name] = {k: gain_of(of, against[k]) for k, of in shared.items()}
    return found


def term_effects(pooled: Pooled, sets: TermSets) -> dict[str, dict[str, Any]]:
    """What each family of terms adds to the frozen encoder, by its name and k.

    The mean difference between variants that have the family and variants with the same other
    families that do not, on the same people, labels and seeds. Families without such a pair, and k
    without a draw that all pairs share, are left out.
    """
    frozen = {name: _frozen_records(results) for name, results in pooled.items()}
    found: dict[str, dict[str, Any]] = {}
    for family in sets.families:
        pairs = [pair for pair in sets.pairs(family) if all(name in frozen for name in pair)]
        for k in frozen[pairs[0][0]] if pairs else ():
            records = [tuple(frozen[name].get(k, {}) for name in pair) for pair in pairs]
            if set.intersection(*(set(of) for pair in records for of in pair)):
                of_pairs = [(having, lacking) for having, lacking in records]
                found.setdefault(family, {})[k] = mean_gain_of(of_pairs)
    return found


def rank_variants(pooled: Pooled, k: str) -> Ranks | None:
    """Ranks of the variants' frozen encoders at ``k`` over the tasks that all have.

    A task is a split of the people of the same data sets; seeds and draws are averaged.
    """
    scores: dict[str, dict[Any, list[float]]] = {}
    for name, results in pooled.items():
        tasks: dict[Any, list[float]] = defaultdict(list)
        for (split, _, _), record in _frozen_records(results).get(k, {}).items():
            tasks[split].append(record["accuracy"])
        if tasks:
            scores[name] = tasks
    shared = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    if len(scores) > MOST_RANKED:
        return None
    return rank_competitors(
        {name: [float(np.mean(of[t])) for t in shared] for name, of in scores.items()}
    )


def _frozen_records(results: Mapping[str, Any]) -> dict[str, Any]:
    """By k the records of the frozen encoder, by split, seed and draw."""
    found = {}
    for k in results["few_shot"]:
        arms = records_by_arm(record for record in results["records"] if record["k"] == k)
        found[k] = arms.get("pretrained", {})
    return found


def write_tables(
    out: Path, pooled: Pooled, reference: str, failed: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Write ``study.json`` and ``study.md``; returns the tables.

    reference: see ``compare_variants``. failed: the error of each trial that failed.
    """
    differences = compare_variants(pooled, reference)
    parts = [format_study(pooled), format_differences(differences, reference)]
    tables = "\n\n".join(filter(None, [*parts, format_failed(failed)]))
    summary = summarise_variants(pooled)
    for name, by_k in differences.items():
        summary[name]["difference"] = {"reference": reference, **by_k}
    write_atomically(out / STUDY_JSON, json.dumps(summary, indent=1) + "\n")
    write_atomically(out / STUDY_TABLE, tables + "\n")
    return tables


def write_costs(out: Path, records: Mapping[str, Record]) -> None:
    """Write ``cost.md`` and the results of all trials."""
    write_all(out, records)
    write_atomically(out / COST_TABLE, format_cost(records) + "\n")


def summarise_variants(results: Pooled) -> dict[str, Any]:
    """The accuracies and differences of each variant's pooled results, without their records."""
    kept = ("few_shot", "paired", "protocol", "encoder", "classes")
    return {
        name: {key: pooled[key] for key in kept if key in pooled}
        | {"runs": [(run["split"], run["pretraining_seed"]) for run in pooled["runs"]]}
        for name, pooled in results.items()
    }


def format_study(results: Pooled) -> str:
    """Tables of the frozen encoder: its accuracy, and its gain over the best fixed baseline.

    Markdown, a row for each variant and, in the first table, for each baseline. Empty where there
    are no results.
    """
    if not results:
        return ""
    first = next(iter(results.values()))
    columns = list(first["few_shot"])
    head = "".join(f" | k = {k}" for k in columns) + " |"
    rule = "| --- " * (len(columns) + 1) + "|"
    accuracy = [_row(ARMS[name].title, first["few_shot"], name) for name in FIXED_BASELINES]
    accuracy += [_row(name, pooled["few_shot"], "pretrained") for name, pooled in results.items()]
    gains = [_gain_row(name, pooled) for name, pooled in results.items()]
    title = ["", f"| frozen encoder - best baseline, points{head}", rule]
    return "\n".join([f"| accuracy, %{head}", rule, *filter(None, accuracy), *title, *gains])


def format_differences(differences: Mapping[str, Mapping[str, Any]], reference: str) -> str:
    """A table of what ``compare_variants`` gives; empty where that is empty."""
    columns = list(dict.fromkeys(k for by_k in differences.values() for k in by_k))
    if not columns:
        return ""
    lines = [f"| variant - {reference}, points{''.join(f' | k = {k}' for k in columns)} |"]
    lines.append("| --- " * (len(columns) + 1) + "|")
    for name, by_k in differences.items():
        cells = [format_interval(by_k[k], "+") if k in by_k else "-" for k in columns]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def format_failed(failed: Mapping[str, str]) -> str:
    """A table of the trials that failed; empty where none did."""
    if not failed:
        return ""
    rows = [f"| {trial} | {error.replace('|', '/')} |" for trial, error in failed.items()]
    return "\n".join(["| failed trial | error |", "| --- | --- |", *rows])


def format_cost(records: Mapping[str, Record]) -> str:
    """A table of what the trials of each variant cost, in the mean."""
    rows = ["| cost of a trial | pretraining, s | evaluation, s | windows/s | peak memory, MB |"]
    rows.append("| --- " * 5 + "|")
    for name, cost in cost_by_variant(records).items():
        cells = ["-" if cost[key] is None else f"{cost[key]:,.1f}" for key in COST]
        rows.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(rows)


def cost_by_variant(records: Mapping[str, Record]) -> dict[str, dict[str, float | None]]:
    """For each variant the mean cost of its trials, by the names of ``COST``."""
    variants = dict.fromkeys(record["variant"] for record in records.values())
    found: dict[str, dict[str, float | None]] = {}
    for name in variants:
        costs = [record["cost"] for record in records.values() if record["variant"] == name]
        means = {key: [cost[key] for cost in costs if cost.get(key) is not None] for key in COST}
        found[name] = {key: float(np.mean(m)) if m else None for key, m in means.items()}
    return found


def _row(title: str, few_shot: Mapping[str, Any], arm: str) -> str:
    cells = [format_interval(row[arm]) if arm in row else "-" for row in few_shot.values()]
    return "| " + " | ".join([title, *cells]) + " |" if set(cells) != {"-"} else ""


def _gain_row(title: str, pooled: Mapping[str, Any]) -> str:
    best, paired = best_baselines(pooled), pooled["paired"]
    cells = [
        format_interval(paired[k]["pretrained"][best[k]], "+") if k in best else "-"
        for k in pooled["few_shot"]
    ]
    return "| " + " | ".join([title, *cells]) + " |"
