"""Results of few-shot runs: one structure, whether of a single run or of many pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from primus_scale.evaluate.statistics import mean_interval

SCHEMA = 1
ARMS = {  # by name, in the order of reports
    "pretrained": "pretrained, frozen + linear",
    "pretrained_finetuned": "pretrained, fine-tuned",
    "scratch": "same encoder from scratch",
    "random": "random weights + linear",
    "features": "hand-crafted features",
}
PRETRAINED_ARMS = ("pretrained", "pretrained_finetuned")
DESCRIPTIONS = ("encoder", "data", "augment")  # what ``evaluate`` adds
BASELINES = ("scratch", "random", "features")

Values = dict[tuple[int, int], float]  # {(split, draw): accuracy or such}


def assemble(
    runs: Sequence[dict[str, Any]],
    records: Sequence[dict[str, Any]],
    *,
    classes: Sequence[str],
    protocol: dict[str, Any],
) -> dict[str, Any]:
    """Results, ready for JSON.

    runs: what each run was (split, pretraining seed, people, chosen settings). records: one entry
    an arm, k and draw. few_shot {k: {arm: interval}} of accuracy, as a share of 1; macro_f1
    likewise; paired {k: {arm: {baseline: interval}}} of the difference in accuracy;
    paired_by_split likewise, with the mean difference of each split under ``splits``; confusion
    {k: {arm: counts}} summed over draws.

    Intervals are over draws of labels: one value a draw and split, which is the mean over
    pretraining seeds, since those share their labels and are not independent. Draws of one split
    share their test people, so those intervals speak for the people tested. Those in
    ``paired_by_split`` are over splits of people: one value a split, and no width where it is one.
    """
    few_shot: dict[str, dict[str, Any]] = {}
    macro_f1: dict[str, dict[str, Any]] = {}
    paired: dict[str, dict[str, Any]] = {}
    paired_by_split: dict[str, dict[str, Any]] = {}
    confusion: dict[str, dict[str, Any]] = {}
    for k in sorted({record["k"] for record in records}, key=_order_of_k):
        of_k = [record for record in records if record["k"] == k]
        accuracy = _values_by_arm(of_k, "accuracy")
        few_shot[k] = {
            arm: mean_interval(list(v.values())).as_dict() for arm, v in accuracy.items()
        }
        macro_f1[k] = {
            arm: mean_interval(list(values.values())).as_dict()
            for arm, values in _values_by_arm(of_k, "macro_f1").items()
        }
        gains = _paired_differences(accuracy)
        paired[k] = _summarise_gains(gains, _over_draws)
        paired_by_split[k] = _summarise_gains(gains, _over_splits)
        confusion[k] = {
            arm: np.sum([r["confusion"] for r in of_k if r["arm"] == arm], axis=0).tolist()
            for arm in accuracy
        }
    return {
        "schema": SCHEMA,
        "classes": list(classes),
        "protocol": protocol,
        "few_shot": few_shot,
        "macro_f1": macro_f1,
        "paired": paired,
        "paired_by_split": paired_by_split,
        "confusion": confusion,
        "runs": list(runs),
        "records": list(records),
    }


def pool(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of several runs (splits of people, pretraining seeds) as those of one.

    Encoder and data are described as in the first. Raises ValueError where classes, protocols or
    encoder architectures differ, or a run occurs twice.
    """
    if not results:
        raise ValueError("no results to pool")
    for key in ("schema", "classes", "protocol", "augment"):
        if any(result.get(key) != results[0].get(key) for result in results):
            raise ValueError(f"results differ in their {key}; pool only runs of one protocol")
    architectures = {(r.get("encoder") or {}).get("name") for r in results}
    if len(architectures) > 1:
        raise ValueError(f"results are of different encoders {architectures}; pool them apart")
    runs = [run for result in results for run in result["runs"]]
    names = [(run["split"], run["pretraining_seed"]) for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"a pair of split and pretraining seed occurs twice in {sorted(names)}")
    pooled = assemble(
        runs,
        [record for result in results for record in result["records"]],
        classes=results[0]["classes"],
        protocol=results[0]["protocol"],
    )
    return {**pooled, **{key: results[0][key] for key in DESCRIPTIONS if key in results[0]}}


def format_table(results: Mapping[str, Any]) -> str:
    """Accuracy in percent with its 95 % interval, an arm a line and a column for each k."""
    table = results["few_shot"]
    columns = list(table)
    lines = [" " * 28 + "".join(f"{'k = ' + k:>20}" for k in columns)]
    for arm in arms_of(results):
        cells = [f"{format_interval(table[k][arm]):>20}" for k in columns]
        lines.append(f"{ARMS[arm]:<28}" + "".join(cells))
    return "\n".join(lines)


def format_interval(interval: Mapping[str, float]) -> str:
    """``81.2 [79.9, 82.5]``, in percent."""
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def arms_of(results: Mapping[str, Any]) -> list[str]:
    """Arms that the results hold, in the order of reports."""
    held = {arm for row in results["few_shot"].values() for arm in row}
    return [arm for arm in ARMS if arm in held]


def _order_of_k(k: str) -> float:
    return float("inf") if k == "all" else int(k)


def _values_by_arm(records: Sequence[dict[str, Any]], measure: str) -> dict[str, Values]:
    """By arm; means over pretraining seeds."""
    values: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        values[record["arm"]][record["split"], record["draw"]].append(record[measure])
    return {
        arm: {place: float(np.mean(seeds)) for place, seeds in values[arm].items()}
        for arm in ARMS
        if arm in values
    }


def _paired_differences(accuracy: Mapping[str, Values]) -> dict[str, dict[str, Values]]:
    """By pretrained arm and baseline, on the draws that both have."""
    return {
        arm: {
            baseline: {
                place: accuracy[arm][place] - accuracy[baseline][place]
                for place in accuracy[arm]
                if place in accuracy[baseline]
            }
            for baseline in BASELINES
            if accuracy.get(baseline, {}).keys() & accuracy[arm].keys()
        }
        for arm in PRETRAINED_ARMS
        if arm in accuracy
    }


def _summarise_gains(
    gains: Mapping[str, Mapping[str, Values]], summarise: Callable[[Values], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {
        arm: {baseline: summarise(gain) for baseline, gain in of_arm.items()}
        for arm, of_arm in gains.items()
    }


def _over_draws(gain: Values) -> dict[str, Any]:
    return mean_interval(list(gain.values())).as_dict()


def _over_splits(gain: Values) -> dict[str, Any]:
    """The interval over splits, each of which counts as one value: the mean of its draws."""
    by_split: dict[int, list[float]] = defaultdict(list)
    for (split, _), value in gain.items():
        by_split[split].append(value)
    means = {str(split): float(np.mean(values)) for split, values in by_split.items()}
    return {**mean_interval(list(means.values())).as_dict(), "splits": means}
