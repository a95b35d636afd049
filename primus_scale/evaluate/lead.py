"""The lead of the few-shot report: what helped, by how much, on whom, how sure, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from primus_scale.counted import counted
from primus_scale.evaluate.arm_table import PRETRAINED_ARMS
from primus_scale.evaluate.cost import format_duration, pretraining_seconds, total_fitting_seconds
from primus_scale.evaluate.people import count_gaining
from primus_scale.evaluate.results import arms_of, format_interval, who_is_tested

HEADLINE_K = "5"


def headline_k(results: Mapping[str, Any]) -> str:
    """The k that the report opens with."""
    columns = list(results["few_shot"])
    return HEADLINE_K if HEADLINE_K in columns else columns[0]


def headline_arm(results: Mapping[str, Any]) -> str | None:
    """The first pretrained arm of the table that the headline's k has; None without one."""
    row = results["few_shot"][headline_k(results)]
    return next((arm for arm in PRETRAINED_ARMS if arm in row), None)


class Sentence(NamedTuple):
    """A sentence and the words that it starts with, which tell what it answers."""

    head: str
    text: str


def lead(results: Mapping[str, Any]) -> list[Sentence]:
    """Three sentences on the pretrained encoder against its best baseline; none without such arms.

    The best baseline is the one of the highest mean accuracy at the headline's k. The test people
    choose it, which favours the baselines.
    """
    arm = headline_arm(results)
    if arm is None:
        return []
    baseline = _best_baseline(results, headline_k(results), arm)
    return [
        _what_helped(results, arm, baseline),
        _how_sure(results, arm, baseline),
        _at_what_cost(results, arm, baseline),
    ]


def _what_helped(results: Mapping[str, Any], arm: str, baseline: str | None) -> Sentence:
    k, arms = headline_k(results), arms_of(results)
    accuracy = results["few_shot"][k][arm]
    reached = (
        f"with {labels_of(k)} the {arms[arm].title} encoder is right on "
        f"{with_unit(accuracy, '%')} of the windows of "
        f"{counted(accuracy['people'], 'person', 'people')}{who_is_tested(results)}"
        f"{_data_sets(results)}"
    )
    if baseline is None:
        return Sentence("No baseline was computed", f"{reached}.")
    gains = results["paired"][k][arm]
    several = f"the best of {len(gains)} baselines, " if len(gains) > 1 else ""
    against = f"{with_unit(gains[baseline], 'points', '+')} against {several}"
    others = [name for name in ("scratch", "random") if name in gains and name != baseline]
    more = [f"{with_unit(gains[name], '', '+')} against {arms[name].title}" for name in others]
    text = f"{reached}, {against}{arms[baseline].title}{''.join(f', and {one}' for one in more)}."
    return Sentence(_verdict(gains[baseline]), text)


def _how_sure(results: Mapping[str, Any], arm: str, baseline: str | None) -> Sentence:
    k = headline_k(results)
    people = results["few_shot"][k][arm]["people"]
    told = f"the brackets are 95 % intervals over people ({_design(results, k, arm)})"
    if baseline is None:
        return Sentence("How sure", f"{told}.")
    more, less = count_gaining(results, k, arm, baseline)
    parts = [
        told,
        f"{more} of {people} people gain over that baseline{f', {less} lose' if less else ''}",
    ]
    above: list[str] = []
    open_: list[str] = []
    below: list[str] = []
    for other in results["few_shot"]:
        best = _best_baseline(results, other, arm)
        if other == k or best is None:
            continue
        gain = results["paired"][other][arm][best]
        group = above if gain["low"] > 0 else below if gain["high"] < 0 else open_
        group.append(f"{other} ({100 * gain['mean']:+.1f})")
    if above or open_ or below:
        said = [
            f"{words} at k = {join_words(found)}"
            for words, found in (("above 0", above), ("not shown", open_), ("below 0", below))
            if found
        ]
        parts.append(f"the gain over the best baseline of each other k is {join_words(said)}")
    return Sentence("How sure", f"{'; '.join(parts)}.")


def _at_what_cost(results: Mapping[str, Any], arm: str, baseline: str | None) -> Sentence:
    seconds, fitting = pretraining_seconds(results), total_fitting_seconds(results)
    arms, parts = arms_of(results), []
    if seconds is not None:
        parts.append(f"pretraining took {format_duration(seconds)}")
    if arm in fitting:
        said = f"{arms[arm].title} took {format_duration(fitting[arm])} for every k and draw"
        if baseline is not None and baseline in fitting:
            said += f", {arms[baseline].title} {format_duration(fitting[baseline])}"
        parts.append(said)
    if encoder := results.get("encoder"):
        parts.append(f"the encoder has {encoder['parameters']:,} parameters")
    if seconds is None and not fitting:
        parts.append("the time that it took is not in these results")
    return Sentence("At what cost", f"{'; '.join(parts)}.")


def _best_baseline(results: Mapping[str, Any], k: str, arm: str) -> str | None:
    row, gains = results["few_shot"][k], results["paired"][k].get(arm, {})
    return max(gains, key=lambda name: row[name]["mean"], default=None)


def _verdict(gain: Mapping[str, float]) -> str:
    if gain["low"] > 0:
        return "Pretraining helped"
    if gain["high"] < 0:
        return "Pretraining did not help, a baseline is better"
    return "No gain by pretraining is shown"


def with_unit(interval: Mapping[str, float], unit: str, sign: str = "") -> str:
    """``+3.1 points [+1.0, +5.2]``; sign: see ``format_interval``."""
    mean, ends = format_interval(interval, sign).split(" ", 1)
    return " ".join(part for part in (mean, unit, ends) if part)


def labels_of(k: str) -> str:
    """``5 labelled windows a class``, ``all labels``."""
    return "all labels" if k == "all" else f"{counted(int(k), 'labelled window')} a class"


def _data_sets(results: Mapping[str, Any]) -> str:
    found = (results.get("data") or {}).get("datasets", {})
    names = [
        f"{name}, synthetic" if note.lower().startswith("synthetic") else name
        for name, note in found.items()
    ]
    return f" ({'; '.join(names)})" if names else ""


def _design(results: Mapping[str, Any], k: str, arm: str) -> str:
    interval, runs = results["few_shot"][k][arm], results["runs"]
    counts = (
        (interval["people"], "person", "people"),
        (len({run["split"] for run in runs}), "split", "splits"),
        (len({run["pretraining_seed"] for run in runs}), "pretraining seed", "pretraining seeds"),
        (interval["draws"], "draw of labels", "draws of labels"),
    )
    return ", ".join(f"{number} {one if number == 1 else more}" for number, one, more in counts)


def join_words(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence: ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
