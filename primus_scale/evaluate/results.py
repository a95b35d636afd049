"""Results of few-shot runs: the same structure for a single run and for pooled runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from primus_scale.counted import counted
from primus_scale.evaluate.arm_table import (
    ARMS,
    FIXED_BASELINES,
    ArmEntry,
    entries_of,
    pairs_of,
)
from primus_scale.evaluate.mixed_model import Fit, gains_of_people, mixed_gain
from primus_scale.evaluate.statistics import mean_macro_f1, people_interval, share_correct

SCHEMA = 2

SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # least and greatest value of an accuracy, of a gain

Record = Mapping[str, Any]


def assemble(
    runs: Sequence[dict[str, Any]],
    records: Sequence[dict[str, Any]],
    *,
    classes: Sequence[str],
    protocol: dict[str, Any],
) -> dict[str, Any]:
    """Results, ready for JSON.

    runs: what each run was (split, pretraining seed, people, chosen settings, how it computed).
    records: one for each arm, k and draw, with ``people`` {name: {correct, total, confusion}}.

    few_shot   {k: {arm: interval}} of accuracy, as a share of 1. draws: number of draws of labels
               in all splits. draw_sd: deviation of accuracy from draw to draw
    macro_f1   the same for macro-F1
    paired     {k: {arm: {baseline: interval}}} of the difference in accuracy, on the draws that
               both arms have. splits: its mean in each split
    mixed      with ``protocol["mixed_model"]`` only: the same differences by
               ``mixed_model.mixed_gain``, where it has an answer
    confusion  {k: {arm: counts}}, summed over draws

    Intervals are over people, since other people could have been tested
    (``statistics.people_interval``). Draws and seeds share their test windows, so they are no
    additional people: a person's answers are averaged over them in each split. A person in two
    splits is one person: the answers are summed over splits, and people of all splits are resampled
    together. Accuracy is correct answers over windows of the resampled people, and a difference
    uses the same people on both sides. The intervals hold for the labels as drawn; ``draw_sd``
    shows the effect of other labels.
    """
    few_shot: dict[str, dict[str, Any]] = {}
    scores: dict[str, dict[str, Any]] = {}
    paired: dict[str, dict[str, Any]] = {}
    confusion: dict[str, dict[str, Any]] = {}
    mixed: dict[str, dict[str, Any]] = {}
    for k in sorted({record["k"] for record in records}, key=_order_of_k):
        arms = records_by_arm(record for record in records if record["k"] == k)
        few_shot[k] = {arm: accuracy_of(of_arm) for arm, of_arm in arms.items()}
        scores[k] = {arm: macro_f1_of(of_arm) for arm, of_arm in arms.items()}
        paired[k] = _paired(arms)
        if protocol.get("mixed_model"):
            mixed[k] = _mixed(arms, paired[k])
        confusion[k] = {
            arm: np.sum([_total_confusion(r) for r in of_arm.values()], axis=0).tolist()
            for arm, of_arm in arms.items()
        }
    return {
        "schema": SCHEMA,
        "classes": list(classes),
        "protocol": protocol,
        "few_shot": few_shot,
        "macro_f1": scores,
        "paired": paired,
        **({"mixed": mixed} if mixed else {}),
        "confusion": confusion,
        "runs": list(runs),
        "records": list(records),
    }


def format_table(results: Mapping[str, Any]) -> str:
    """A text table of accuracy and paired differences with 95 % intervals.

    A line for each arm or pair, a column for each k, and one for the number of draws, since trained
    arms may have fewer; under it what the encoder gains over hand-crafted features.
    """
    table, paired = results["few_shot"], results["paired"]
    columns = list(table)
    people = max(row[arm]["people"] for row in table.values() for arm in row)
    lines = [
        f"accuracy on {counted(people, 'person', 'people')}{who_is_tested(results)}, in %, with "
        "95 % intervals over people",
        f"classes: {', '.join(results['classes'])}; k labelled windows of each",
    ]
    arms = arms_of(results)
    rows = [_Row("", "draws", [f"k = {k}" for k in columns])]
    for arm, entry in arms.items():
        cells = [format_interval(table[k][arm]) if arm in table[k] else "-" for k in columns]
        draws = max(table[k][arm]["draws"] for k in columns if arm in table[k])
        rows.append(_Row(entry.title, str(draws), cells))
    if pairs := [*_pair_rows(arms, paired)]:
        rows += [_Row("difference on the same labels, in points"), *pairs]
    if "mixed" in results:
        rows.append(_Row("the same by a mixed model, people and draws of labels random"))
        rows += _pair_rows(arms, results["mixed"])
    lines += _align(rows)
    if limited := marked_arms(results, "at_limit"):
        lines.append(
            f"chosen at the limit of {counted(results['protocol']['steps'], 'step')}, so that more "
            f"might be better (few_shot.steps): {', '.join(limited)}"
        )
    if collapsed := marked_arms(results, "collapsed"):
        lines.append(
            "collapsed: all windows have the same features, so that the answers mean nothing: "
            f"{', '.join(collapsed)}"
        )
    lines += _gain_over_baselines(results, people)
    return "\n".join(lines)


class _Row(NamedTuple):
    """A row of the text table: what it is of, its draws, and a cell for each k."""

    title: str
    draws: str = ""
    cells: Sequence[str] = ()


def _align(rows: Sequence[_Row]) -> Iterator[str]:
    """The lines of a table whose first column is as wide as its longest title with cells."""
    width = max(len(row.title) for row in rows if row.cells)
    for row in rows:
        line = f"{row.title:<{width}}{row.draws:>7}"
        yield (line + "".join(f"{cell:>22}" for cell in row.cells)).rstrip()


def _pair_rows(
    arms: Mapping[str, ArmEntry], paired: Mapping[str, Mapping[str, Any]]
) -> Iterator[_Row]:
    """A row for each pair of arms with a difference; draws if known."""
    for arm, baselines in pairs_of(arms).items():
        for baseline in baselines:
            gains = [row.get(arm, {}).get(baseline) for row in paired.values()]
            held = [gain for gain in gains if gain is not None]
            if held:
                cells = ["-" if gain is None else format_interval(gain, "+") for gain in gains]
                draws = max(gain.get("draws", 0) for gain in held)
                title = f"{arms[arm].title} - {arms[baseline].title}"
                yield _Row(title, str(draws or ""), cells)


def _gain_over_baselines(results: Mapping[str, Any], people: int) -> list[str]:
    """Sentences on the frozen encoder against hand-crafted features, and the best baseline.

    The best of the baselines without a trained encoder is taken at each k; with one baseline there
    is one sentence, without any none.
    """
    gains = {k: row.get("pretrained", {}) for k, row in results["paired"].items()}
    best = best_baselines(results)
    lines = []
    if crafted := {k: row["features"] for k, row in gains.items() if "features" in row}:
        parts = [f"{format_interval(gain, '+')} points at k = {k}" for k, gain in crafted.items()]
        lines.append(
            "the frozen encoder against hand-crafted features, on "
            f"{counted(people, 'person', 'people')}{who_is_tested(results)}: {', '.join(parts)}"
        )
    if set(best.values()) - {"features", "random"}:
        parts = [
            f"{format_interval(gains[k][name], '+')} at k = {k} ({ARMS[name].title})"
            for k, name in best.items()
        ]
        lines.append(f"against the best baseline without a trained encoder: {', '.join(parts)}")
    return lines


def who_is_tested(results: Mapping[str, Any]) -> str:
    """Words to follow "people": whether encoder or labels have seen the test people before.

    " never seen" where that is not known: results of ``run_few_shot`` alone say nothing about the
    pretraining data.
    """
    runs = results["runs"]
    if any(set(run["label_people"]) & set(run["test_people"]) for run in runs):
        return " (some of them with windows among the labels)"
    if any((run.get("pretrained_people") or {}).get("test") for run in runs):
        return " (some of them in the pretraining data)"
    if "people" in results.get("protocol", {}).get("task", {}).get("may_share", ()):
        return " (who may be those of the labels under other names: may_share)"
    return " never seen"


def best_baselines(results: Mapping[str, Any]) -> dict[str, str]:
    """By k the fixed baseline with the highest mean accuracy, of those compared with the encoder.

    A k without such a baseline is left out. The encoder is the frozen one (``pretrained``).
    """
    best = {}
    for k, row in results["few_shot"].items():
        paired = results["paired"][k].get("pretrained", {})
        names = [name for name in FIXED_BASELINES if name in paired]
        if names:
            best[k] = max(names, key=lambda name: row[name]["mean"])
    return best


def format_interval(interval: Mapping[str, float], sign: str = "") -> str:
    """``81.2 [79.9, 82.5]``, in percent; ``sign`` "+" shows the sign of positive values."""
    return " ".join(format_ends(interval, sign))


def format_ends(interval: Mapping[str, float], sign: str = "") -> tuple[str, str]:
    """The mean and the ends of that: ``81.2`` and ``[79.9, 82.5]``."""
    mean, low, high = (format(100 * interval[k], f"{sign}.1f") for k in ("mean", "low", "high"))
    return mean, f"[{low}, {high}]"


def format_setting(setting: Mapping[str, Any]) -> str:
    """The setting that an arm chose: ``strength 0.1, scaling none`` or ``0.003 x 345 steps``.

    ``(the limit)`` is added where ``few_shot.steps`` steps were the best, ``(collapsed)`` where all
    windows have the same features.
    """
    if "steps" in setting:
        limit = " (the limit)" if setting["at_limit"] else ""
        return f"{setting['lr']:.3g} x {counted(setting['steps'], 'step')}{limit}"
    chosen = {name: value for name, value in setting.items() if name != "collapsed"}
    text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in chosen.items())
    return text + " (collapsed)" * ("collapsed" in setting)


def arms_of(results: Mapping[str, Any]) -> dict[str, ArmEntry]:
    """Arms that the results hold, in the order of reports."""
    return entries_of(arm for row in results["few_shot"].values() for arm in row)


def marked_arms(results: Mapping[str, Any], mark: str) -> list[str]:
    """Arms, each with its k, whose setting has ``mark`` in any run.

    ``at_limit``: the longest training allowed was the best. ``collapsed``: features are constant.
    """
    return [
        f"{entry.title} at k = {k}"
        for k in results["few_shot"]
        for arm, entry in arms_of(results).items()
        if any(run["settings"][k].get(arm, {}).get(mark) for run in results["runs"])
    ]


def _order_of_k(k: str) -> float:
    return float("inf") if k == "all" else int(k)


def records_by_arm(records: Any) -> dict[str, dict[Fit, Record]]:
    """Records of one k by arm, each by its split, pretraining seed and draw of labels."""
    by_arm: dict[str, dict[Fit, Record]] = defaultdict(dict)
    for record in records:
        fit = (record["split"], record["pretraining_seed"], record["draw"])
        by_arm[record["arm"]][fit] = record
    return {arm: by_arm[arm] for arm in entries_of(by_arm)}


def accuracy_of(records: Mapping[Fit, Record]) -> dict[str, Any]:
    """Accuracy with its interval over people, see ``assemble``."""
    people = _people(records)
    correct, total = _answers(records, people)
    interval = people_interval(share_correct(correct, total), len(people), SHARE)
    return {**interval.as_dict(), **_over_draws(_by_fit(records, "accuracy"))}


def macro_f1_of(records: Mapping[Fit, Record]) -> dict[str, Any]:
    """Mean macro-F1 over seeds and draws; windows of all splits make one test."""
    people = _people(records)
    row = {name: number for number, name in enumerate(people)}
    tests = sorted({(seed, draw) for _, seed, draw in records})
    size = len(next(iter(next(iter(records.values()))["people"].values()))["confusion"])
    counts = np.zeros((len(tests), len(people), size, size))
    for (_, seed, draw), record in records.items():
        for name, answers in record["people"].items():
            counts[tests.index((seed, draw)), row[name]] += answers["confusion"]
    interval = people_interval(mean_macro_f1(counts), len(people), SHARE)
    return {**interval.as_dict(), **_over_draws(_by_fit(records, "macro_f1"))}


def gain_of(ours: Mapping[Fit, Record], theirs: Mapping[Fit, Record]) -> dict[str, Any]:
    """Difference in accuracy on the fits that both have, with its interval over people."""
    return mean_gain_of([(ours, theirs)])


def mean_gain_of(
    pairs: Sequence[tuple[Mapping[Fit, Record], Mapping[Fit, Record]]],
) -> dict[str, Any]:
    """The mean of several differences on the fits that all have, with its interval over people."""
    shared = sorted(set.intersection(*(set(of) for pair in pairs for of in pair)))
    kept = [[{fit: of[fit] for fit in shared} for of in pair] for pair in pairs]
    people = _people(kept[0][0])
    # (pairs, ours and theirs, right and all answers, people): the mean over pairs
    answers = np.array([[_answers(of, people) for of in pair] for pair in kept]).mean(axis=0)
    interval = people_interval(
        share_correct(answers[0, 0] - answers[1, 0], answers[0, 1]), len(people), DIFFERENCE
    )
    accuracy = [[_by_fit(of, "accuracy") for of in pair] for pair in kept]
    gains = {fit: float(np.mean([us[fit] - them[fit] for us, them in accuracy])) for fit in shared}
    splits = {
        str(split): float(np.mean([gain for fit, gain in gains.items() if fit[0] == split]))
        for split in sorted({fit[0] for fit in shared})
    }
    return {**interval.as_dict(), **_over_draws(gains), "splits": splits}


def _paired(arms: Mapping[str, Mapping[Fit, Record]]) -> dict[str, Any]:
    return {
        arm: {
            name: gain_of(arms[arm], arms[name])
            for name in baselines
            if arms[name].keys() & arms[arm].keys()
        }
        for arm, baselines in pairs_of(arms).items()
    }


def _mixed(
    arms: Mapping[str, Mapping[Fit, Record]], paired: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The pairs of ``paired`` by a mixed model; those for which it has no answer are left out."""
    found = {
        arm: {name: mixed_gain(*gains_of_people(arms[arm], arms[name])) for name in baselines}
        for arm, baselines in paired.items()
    }
    return {
        arm: {name: gain for name, gain in gains.items() if gain is not None}
        for arm, gains in found.items()
    }


def _people(records: Mapping[Fit, Record]) -> list[str]:
    return sorted({name for record in records.values() for name in record["people"]})


def _answers(records: Mapping[Fit, Record], people: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Correct answers and windows of each person ``(P,)``: fits averaged, splits added up."""
    row = {name: number for number, name in enumerate(people)}
    fits: dict[int, int] = defaultdict(int)
    for split, _, _ in records:
        fits[split] += 1
    sums = np.zeros((2, len(people)))
    for (split, _, _), record in records.items():
        for name, answers in record["people"].items():
            sums[:, row[name]] += np.array([answers["correct"], answers["total"]]) / fits[split]
    return sums[0], sums[1]


def _total_confusion(record: Record) -> np.ndarray:
    return np.sum([answers["confusion"] for answers in record["people"].values()], axis=0)


def _by_fit(records: Mapping[Fit, Record], measure: str) -> dict[Fit, float]:
    return {fit: record[measure] for fit, record in records.items()}


def _over_draws(values: Mapping[Fit, float]) -> dict[str, Any]:
    """Number of draws of labels in all splits, and the deviation between those of one split.

    Seeds are averaged first; the variances of the splits count by their degrees of freedom.
    """
    draws: dict[tuple[int, int], list[float]] = defaultdict(list)
    for (split, _, draw), value in values.items():
        draws[split, draw].append(value)
    by_split: dict[int, list[float]] = defaultdict(list)
    for (split, _), seeds in draws.items():
        by_split[split].append(float(np.mean(seeds)))
    spread = [((np.array(of) - np.mean(of)) ** 2).sum() for of in by_split.values()]
    freedom = len(draws) - len(by_split)
    return {
        "draws": len(draws),
        "draw_sd": float(np.sqrt(sum(spread) / freedom)) if freedom else None,
    }
