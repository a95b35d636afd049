"""The lead of a study's page: what helped, by how much, on whom, how sure, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from primus_scale.counted import counted
from primus_scale.evaluate.arm_table import ARMS
from primus_scale.evaluate.cost import format_duration
from primus_scale.evaluate.lead import Sentence, headline_k, join_words, labels_of, with_unit
from primus_scale.evaluate.results import best_baselines, who_is_tested
from primus_scale.study.records import Record

Intervals = Mapping[str, Mapping[str, Any]]


def study_lead(
    pooled: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Intervals],
    effects: Mapping[str, Intervals],
    reference: str,
    records: Mapping[str, Record],
) -> list[Sentence]:
    """Up to three sentences; those of accuracy only where something was evaluated.

    differences: to the reference, by variant and k. effects: of families of terms, by name and k.
    """
    found = []
    best = best_variant(pooled)
    if best is not None:
        found.append(_what_helped(pooled[best], best, effects))
        found.append(_how_sure(pooled, best, differences, reference))
    costs = [record["cost"] for record in records.values()]
    if seconds := [cost["pretraining_s"] for cost in costs if cost.get("pretraining_s")]:
        found.append(_at_what_cost(seconds, costs))
    return found


def best_variant(pooled: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The variant whose frozen encoder is right most often at the headline's k."""
    if not pooled:
        return None
    k = headline_k(next(iter(pooled.values())))
    rows = {name: results["few_shot"].get(k, {}) for name, results in pooled.items()}
    held = {name: row["pretrained"]["mean"] for name, row in rows.items() if "pretrained" in row}
    return max(held, key=lambda name: held[name], default=None)


def _what_helped(
    results: Mapping[str, Any], best: str, effects: Mapping[str, Intervals]
) -> Sentence:
    k = headline_k(results)
    accuracy = results["few_shot"][k]["pretrained"]
    text = (
        f"with {labels_of(k)} variant {best} is the best: its frozen encoder is right on "
        f"{with_unit(accuracy, '%')} of the windows of {accuracy['people']} "
        f"people{who_is_tested(results)}"
    )
    if k in (baselines := best_baselines(results)):
        gain = results["paired"][k]["pretrained"][baselines[k]]
        text += (
            f", {with_unit(gain, 'points', '+')} against {ARMS[baselines[k]].title}, the best "
            "baseline without a trained encoder"
        )
    added = {name: by_k[k] for name, by_k in effects.items() if k in by_k}
    if added:
        order = sorted(added, key=lambda name: -added[name]["mean"])
        said = [f"{name} {with_unit(added[name], '', '+')}" for name in order]
        text += f"; what each family of terms adds, in points: {join_words(said)}"
    return Sentence("What helped", f"{text}.")


def _how_sure(
    pooled: Mapping[str, Mapping[str, Any]],
    best: str,
    differences: Mapping[str, Intervals],
    reference: str,
) -> Sentence:
    results = pooled[best]
    k = headline_k(results)
    runs, accuracy = results["runs"], results["few_shot"][k]["pretrained"]
    splits, seeds = ({run[key] for run in runs} for key in ("split", "pretraining_seed"))
    text = (
        f"the brackets are 95 % intervals over people "
        f"({counted(accuracy['people'], 'person', 'people')}, {counted(len(splits), 'split')}, "
        f"{counted(len(seeds), 'pretraining seed')}, "
        f"{counted(accuracy['draws'], 'draw of labels', 'draws of labels')})"
    )
    found = [by_k[k] for by_k in differences.values() if k in by_k]
    if found:
        better = sum(one["low"] > 0 for one in found)
        worse = sum(one["high"] < 0 for one in found)
        text += (
            f"; of {len(found)} other variants {better} are shown to be better than {reference} on "
            f"the same people and labels, {worse} to be worse"
        )
    if len(pooled) > 2:
        text += "; the best of several variants is partly the luckiest, chosen on the test people"
    return Sentence("How sure", f"{text}.")


def _at_what_cost(seconds: Sequence[float], costs: Sequence[Mapping[str, Any]]) -> Sentence:
    evaluation = [cost["evaluation_s"] for cost in costs if cost.get("evaluation_s")]
    text = (
        f"pretraining took {format_duration(float(np.median(seconds)))} a trial in the median, "
        f"from {format_duration(min(seconds))} to {format_duration(max(seconds))}"
        if len(seconds) > 1
        else f"pretraining took {format_duration(seconds[0])}"
    )
    total = format_duration(sum(seconds) + sum(evaluation))
    text += f"; {counted(len(costs), 'trial')} with their evaluation took {total}"
    return Sentence("At what cost", f"{text}.")
