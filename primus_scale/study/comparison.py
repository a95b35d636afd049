"""Several evaluations side by side: pooled where they are of one task, compared over tasks.

A task is what is classified: data sets, classes, and how it was measured. Over three tasks or more
the arms are ranked (``evaluate.ranks``). The page is ``templates/comparison.html``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from primus_scale.counted import counted
from primus_scale.evaluate.command import write_results
from primus_scale.evaluate.lead import HEADLINE_K, Sentence, headline_arm, join_words, labels_of
from primus_scale.evaluate.pooling import pool
from primus_scale.evaluate.rank_chart import rank_chart
from primus_scale.evaluate.ranks import Ranks, rank_competitors
from primus_scale.evaluate.report import render_both, wide_charts, write_files
from primus_scale.evaluate.results import arms_of, best_baselines, format_ends
from primus_scale.monitor.drawing import two_widths
from primus_scale.study.charts import interval_chart

_PACKAGE = "primus_scale.study"

Results = Mapping[str, Any]


def compare_results(results: Mapping[str, Results], out: Path) -> None:
    """Write the report of results by the paths of their files; ValueError as ``pool``."""
    tasks = _tasks(results)
    if len(tasks) == 1:
        write_results(next(iter(tasks.values())), out)
    else:
        write_files(out, render_comparison(tasks))


def render_comparison(tasks: Mapping[str, Results]) -> dict[str, str]:
    """The page of several tasks, its Markdown and charts, by path. tasks: results by a name.

    ValueError where the tasks have no k or no arm in common.
    """
    k = _common_k(tasks)
    rows = {name: of["few_shot"][k] for name, of in tasks.items()}
    arms = {
        arm: entry.title
        for arm, entry in arms_of(next(iter(tasks.values()))).items()
        if all(arm in row for row in rows.values())
    }
    if not arms:
        raise ValueError(f"no arm was measured in all of {', '.join(tasks)}; give others")
    ranks = rank_competitors(
        {arms[arm]: [row[arm]["mean"] for row in rows.values()] for arm in arms}
    )
    gains = _gains(tasks, k)
    shown = {
        "k": k,
        "lead": [_which_is_best(ranks, tasks, k)] * (ranks is not None) + _on_how_many(gains, k),
        "tasks": list(tasks),
        "accuracy": [
            {"arm": title, "cells": [_percent(row[arm]) for row in rows.values()]}
            for arm, title in arms.items()
        ],
        "ranks": ranks,
        "rank_chart": two_widths(rank_chart, ranks) if ranks else None,
        "gain_chart": (
            two_widths(interval_chart, gains, f"gain, points, k = {k}", {"": 0.0})
            if gains
            else None
        ),
    }
    return render_both(_PACKAGE, "comparison", shown, wide_charts(shown))


def _tasks(results: Mapping[str, Results]) -> dict[str, Results]:
    """The results of each task, pooled, by a name that tells it from the others."""
    groups: dict[str, list[str]] = {}
    for file, of in results.items():
        architecture = (of.get("encoder") or {}).get("name")
        alike = (of["classes"], of["protocol"], of.get("augment"), _data_sets(of), architecture)
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(file)
    named: dict[str, Results] = {}
    for files in groups.values():
        name = _data_sets(results[files[0]]) or files[0]
        while name in named:
            name = files[0] if name != files[0] else f"{name} (2)"
        named[name] = pool([results[file] for file in files])
    return named


def _data_sets(results: Results) -> str:
    return ", ".join((results.get("data") or {}).get("datasets", {}))


def _common_k(tasks: Mapping[str, Results]) -> str:
    first, *others = (list(of["few_shot"]) for of in tasks.values())
    common = [k for k in first if all(k in other for other in others)]
    if not common:
        raise ValueError(
            f"no number of labels was measured in all of {', '.join(tasks)}; evaluate them with "
            "one k in common"
        )
    return HEADLINE_K if HEADLINE_K in common else common[0]


def _gains(tasks: Mapping[str, Results], k: str) -> dict[str, Mapping[str, Any]]:
    """The gain of the encoder over the best baseline of each task, by the task and baseline."""
    found = {}
    for name, of in tasks.items():
        if headline_arm(of) == "pretrained" and k in (best := best_baselines(of)):
            found[f"{name}: over {arms_of(of)[best[k]].title}"] = of["paired"][k]["pretrained"][
                best[k]
            ]
    return found


def _which_is_best(ranks: Ranks | None, tasks: Mapping[str, Results], k: str) -> Sentence:
    assert ranks is not None
    best = next(iter(ranks.mean))
    alike = [
        name
        for name, mean in ranks.mean.items()
        if name != best and mean - ranks.mean[best] < ranks.critical
    ]
    text = (
        f"with {labels_of(k)} {best} has the lowest mean rank, {ranks.mean[best]:.2f}, over "
        f"{counted(len(tasks), 'task')}; "
    )
    text += f"{join_words(alike)} do not differ from it" if alike else "all others differ from it"
    return Sentence("Which is best", f"{text} (critical difference {ranks.critical:.2f}).")


def _on_how_many(gains: Mapping[str, Mapping[str, Any]], k: str) -> list[Sentence]:
    if not gains:
        return []
    above = sum(gain["low"] > 0 for gain in gains.values())
    below = sum(gain["high"] < 0 for gain in gains.values())
    text = (
        f"with {labels_of(k)} the frozen encoder is shown to be better than the best baseline "
        f"without a trained encoder on {above} of {len(gains)} tasks, and worse on {below}."
    )
    return [Sentence("On how many", text)]


def _percent(interval: Mapping[str, float]) -> dict[str, str]:
    mean, ends = format_ends(interval)
    return {"mean": mean, "interval": ends}
