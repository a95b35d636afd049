"""Rows and lines of the few-shot report's tables, as texts, from results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from primus_scale.evaluate.arm_table import entries_of, pairs_of
from primus_scale.evaluate.cost import fitting_seconds, format_duration, pretraining_seconds
from primus_scale.evaluate.lead import join_words
from primus_scale.evaluate.results import arms_of, format_ends, format_setting
from primus_scale.evaluate.task import describe_pretrained


def arm_rows(results: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    """Each arm's ``measure`` at every k, None where it was not measured."""
    columns = results[measure].values()
    best = [max((row[arm]["mean"], arm) for arm in row)[1] for row in columns]
    return [
        {
            "arm": entry.title,
            "cells": [
                percent(row[arm]) | {"best": arm == winner} if arm in row else None
                for row, winner in zip(columns, best, strict=True)
            ],
        }
        for arm, entry in arms_of(results).items()
    ]


def gain_row(baseline: str, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Gains over one baseline; with those of each split, if there are several."""
    gains = [row.get(baseline) for row in columns]
    return {
        "gains": [
            gain
            and percent(gain, sign="+")
            | {
                "splits": [f"{100 * mean:+.1f}" for mean in gain["splits"].values()]
                if len(gain["splits"]) > 1
                else []
            }
            for gain in gains
        ],
    }


def mixed_rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
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
                        and percent(gain, sign="+")
                        | {part: f"{100 * gain[f'{part}_sd']:.1f}" for part in ("person", "draw")}
                        for gain in gains
                    ],
                }


def retrieval_rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each run and direction of retrieval."""
    for run in results.get("retrieval", ()):
        for direction, found in run["directions"].items():
            yield {
                **{key: run[key] for key in ("split", "pretraining_seed")},
                "direction": direction.replace("_to_", " to ").replace("imu", "IMU"),
                "windows": found["windows"],
                "recall": {
                    at: percent(one) | {"chance": f"{100 * one['chance']:.1f}"}
                    for at, one in found["recall"].items()
                },
                "median_rank": found["median_rank"],
                "median_rank_chance": found["median_rank_chance"],
            }


def cost_rows(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Seconds of pretraining and of each arm; None where the results tell neither."""
    seconds, fitting = pretraining_seconds(results), fitting_seconds(results)
    if seconds is None and not fitting:
        return None
    return {
        "pretraining": None if seconds is None else format_duration(seconds),
        "rows": [
            {
                "arm": entry.title,
                "cells": [
                    format_duration(fitting[k][arm]) if arm in fitting.get(k, {}) else None
                    for k in results["few_shot"]
                ],
            }
            for arm, entry in arms_of(results).items()
            if fitting
        ],
    }


def run_rows(results: Mapping[str, Any], k: str) -> Iterator[dict[str, Any]]:
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


def audit_lines(results: Mapping[str, Any]) -> Iterator[str]:
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


def computation(run: Mapping[str, Any]) -> str:
    """In what the trained arms of a run computed."""
    computed = run["computation"]
    return (
        f"{computed['precision']} on {computed['device']} ({computed['capability']}, "
        f"torch {computed['torch']})"
    )


def draws_of_arms(results: Mapping[str, Any]) -> str:
    """How many draws of labels the means are of, as ``10; 3 with all labels; 1 for scratch``."""
    numbers: dict[tuple[int, bool], list[str]] = {}
    for arm, entry in arms_of(results).items():
        for k, row in results["few_shot"].items():
            if arm in row:
                titles = numbers.setdefault((row[arm]["draws"], k == "all"), [])
                titles.extend([entry.title] * (entry.title not in titles))
    usual = max((key for key in numbers), key=lambda key: len(numbers[key]) - 1000 * key[1])
    parts = [str(usual[0])]
    everyone = len(arms_of(results))
    for (number, all_labels), titles in numbers.items():
        if (number, all_labels) != usual and number != usual[0]:
            who = "" if len(titles) == everyone else f" for {join_words(titles)}"
            parts.append(f"{number}{' with all labels' * all_labels}{who}")
    return "; ".join(parts)


def percent(interval: Mapping[str, float], sign: str = "") -> dict[str, Any]:
    """An interval in percent, as its mean and its ends; sign: see ``format_ends``."""
    mean, ends = format_ends(interval, sign)
    return {"mean": mean, "interval": ends}
