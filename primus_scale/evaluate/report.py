"""The few-shot report: one HTML file that needs no other.

The page is ``templates/report.html``; this module computes its numbers and charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from primus_scale.evaluate.arm_table import PRETRAINED_ARMS, entries_of, pairs_of
from primus_scale.evaluate.baseline_arms import TREES
from primus_scale.evaluate.charts import accuracy_chart, paired_chart
from primus_scale.evaluate.draws import HELD_OUT_SHARE
from primus_scale.evaluate.lora import RANK
from primus_scale.evaluate.probe_arm import PROBE_STRENGTHS
from primus_scale.evaluate.results import (
    arms_of,
    format_ends,
    format_setting,
    marked_arms,
    who_is_tested,
)
from primus_scale.evaluate.task import describe_pretrained
from primus_scale.evaluate.trained_arm import FINETUNE_LR_SHARE
from primus_scale.monitor.page import render_page
from primus_scale.monitor.pictures import confusion_chart

HEADLINE_K = "5"


def render_report(results: Mapping[str, Any]) -> str:
    """The report on results (``results.assemble``), single or pooled, as HTML.

    Encoder and data are described where the results hold what ``evaluate`` adds.
    """
    k, arms = headline_k(results), arms_of(results)
    return render_page(
        "primus_scale.evaluate",
        "report.html",
        columns=list(results["few_shot"]),
        k=k,
        headline=_headline(results, k),
        tested=who_is_tested(results),
        audits=list(_audits(results)),
        encoder=results.get("encoder"),
        data=results.get("data"),
        classes=results["classes"],
        accuracy_chart=accuracy_chart(results),
        accuracy=_arm_rows(results, "few_shot"),
        macro_f1=_arm_rows(results, "macro_f1"),
        paired=list(_paired(results)),
        mixed=list(_mixed(results)),
        zero_shot=_zero_shot(results),
        retrieval=list(_retrieval(results)),
        confusion={
            arms[arm].title: confusion_chart(np.array(counts), results["classes"], arms[arm].title)
            for arm, counts in results["confusion"][k].items()
        },
        protocol=results["protocol"],
        held_out_share=HELD_OUT_SHARE,
        arms=arms,
        collapsed=marked_arms(results, "collapsed"),
        strengths=PROBE_STRENGTHS,
        trees=TREES,
        finetune_lr_share=FINETUNE_LR_SHARE,
        lora_rank=RANK,
        augment=[one["name"].replace("_", " ") for one in results.get("augment") or ()],
        computed=sorted({_computation(run) for run in results["runs"]}),
        runs=list(_runs(results, k)),
    )


def headline_k(results: Mapping[str, Any]) -> str:
    """The k that the report opens with."""
    columns = list(results["few_shot"])
    return HEADLINE_K if HEADLINE_K in columns else columns[0]


def _headline(results: Mapping[str, Any], k: str) -> dict[str, Any] | None:
    """The main result: accuracy of the pretrained arm and its gains at the headline's k."""
    row, arms = results["few_shot"][k], arms_of(results)
    arm = next((arm for arm in PRETRAINED_ARMS if arm in row), None)
    if arm is None:
        return None
    gains = results["paired"][k].get(arm, {})
    return {
        "labels": "all labels" if k == "all" else f"{k} label{'s' * (k != '1')} a class",
        "arm": arms[arm].title,
        "accuracy": _percent(row[arm]),
        "gains": [
            _percent(gain, sign="+") | {"baseline": arms[name].title}
            for name, gain in gains.items()
        ],
    }


def _arm_rows(results: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    """Each arm's ``measure`` at every k, None where it was not measured."""
    columns = results[measure].values()
    best = [max((row[arm]["mean"], arm) for arm in row)[1] for row in columns]
    return [
        {
            "arm": entry.title,
            "colour": entry.colour,
            "draws": _each([row[arm]["draws"] for row in columns if arm in row]),
            "cells": [
                _percent(row[arm]) | {"best": arm == winner} if arm in row else None
                for row, winner in zip(columns, best, strict=True)
            ],
        }
        for arm, entry in arms_of(results).items()
    ]


def _paired(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The gains of each pretrained or own arm over the baselines, at every k."""
    arms = arms_of(results)
    for arm, baselines in pairs_of(arms).items():
        columns = {k: row[arm] for k, row in results["paired"].items() if row.get(arm)}
        if columns:
            rows = list(columns.values())
            yield {
                "arm": arms[arm].title,
                "chart": paired_chart(results, arm),
                "columns": list(columns),
                "rows": [
                    {"baseline": arms[name].title, **_gain_row(name, rows)}
                    for name in baselines
                    if any(name in row for row in rows)
                ],
            }


def _mixed(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The differences by the mixed model, with the deviations of its parts in points."""
    arms, table = arms_of(results), results.get("mixed", {})
    for arm, baselines in pairs_of(arms).items():
        for name in baselines:
            gains = [row.get(arm, {}).get(name) for row in table.values()]
            if any(gains):
                yield {
                    "pair": f"{arms[arm].title} - {arms[name].title}",
                    "gains": [
                        gain
                        and _percent(gain, sign="+")
                        | {part: f"{100 * gain[f'{part}_sd']:.1f}" for part in ("person", "draw")}
                        for gain in gains
                    ],
                }


def _zero_shot(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures of the zero-shot classification, if there was one."""
    found = results.get("zero_shot")
    if found is None:
        return None
    alone = [one for record in found["records"] for one in record["by_wording"]]
    return {
        "accuracy": _percent(found["accuracy"]),
        "macro_f1": _percent(found["macro_f1"]),
        "chance": f"{100 * found['chance']:.1f}",
        "alone": [f"{100 * end:.1f}" for end in (min(alone), max(alone))],
        "prompts": found["prompts"],
        "chart": confusion_chart(np.array(found["confusion"]), results["classes"], "zero-shot"),
    }


def _retrieval(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each run and direction of retrieval."""
    for run in results.get("retrieval", ()):
        for direction, found in run["directions"].items():
            yield {
                **{key: run[key] for key in ("split", "pretraining_seed")},
                "direction": direction.replace("_to_", " to ").replace("imu", "IMU"),
                "windows": found["windows"],
                "recall": {
                    at: _percent(one) | {"chance": f"{100 * one['chance']:.1f}"}
                    for at, one in found["recall"].items()
                },
                "median_rank": found["median_rank"],
                "median_rank_chance": found["median_rank_chance"],
            }


def _gain_row(baseline: str, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Gains over one baseline; with those of each split, if there are several."""
    gains = [row.get(baseline) for row in columns]
    return {
        "draws": _each([gain["draws"] for gain in gains if gain is not None]),
        "gains": [
            gain
            and _percent(gain, sign="+")
            | {
                "splits": [f"{100 * mean:+.1f}" for mean in gain["splits"].values()]
                if len(gain["splits"]) > 1
                else []
            }
            for gain in gains
        ],
    }


def _runs(results: Mapping[str, Any], k: str) -> Iterator[dict[str, Any]]:
    """Each run and arm: accuracy at the headline's k, and the setting chosen at each k."""
    for run in results["runs"]:
        for arm, entry in entries_of(run["settings"][k]).items():
            accuracy = [
                record["accuracy"]
                for record in results["records"]
                if (record["k"], record["arm"]) == (k, arm)
                and (record["split"], record["pretraining_seed"])
                == (run["split"], run["pretraining_seed"])
            ]
            yield {
                **run,
                "arm": entry.title,
                "accuracy": np.mean(accuracy),
                "chosen": [format_setting(row[arm]) for row in run["settings"].values()],
            }


def _audits(results: Mapping[str, Any]) -> Iterator[str]:
    """For each run, or once where all are alike, what labels and test share."""
    said: dict[str, None] = {}
    for run in results["runs"]:
        if "audit" not in run:
            continue
        parts = [
            f"{one['kind']} {'not known' if one['number'] is None else one['number'] or 'none'}"
            for one in run["audit"]
        ]
        people = len(run["label_people"]), len(run["test_people"])
        pretrained = describe_pretrained(run.get("pretrained_people"), *people)
        said[f"shared by labels and test: {', '.join(parts)}; {pretrained}"] = None
    yield from said


def _computation(run: Mapping[str, Any]) -> str:
    computed = run["computation"]
    return (
        f"{computed['precision']} on {computed['device']} ({computed['capability']}, "
        f"torch {computed['torch']})"
    )


def _percent(interval: Mapping[str, float], sign: str = "") -> dict[str, Any]:
    mean, ends = format_ends(interval, sign)
    return {"mean": mean, "interval": ends}


def _each(counts: Sequence[int]) -> str:
    """The count of all columns, or the counts of each column where they differ."""
    return ", ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))
