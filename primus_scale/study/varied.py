"""What the variants of a study differ in, as the configurations of their runs say.

A chart needs it: which families of loss terms a variant has, which single setting it changes, what
share of the data it has. A variant that differs in something else is in no such chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from primus_scale.config_file import load_config
from primus_scale.monitor.provenance import CONFIG_FILE
from primus_scale.study.plan import Trial
from primus_scale.study.study_file import Study, Variant

Settings = Mapping[str, Any]  # by keys such as optimizer.lr

WEIGHTS, SHARE, SHARE_BY = "objective.weights.", "data.fraction", "data.fraction_by"
# Where and on what a run is done, and how it is evaluated, is not what its variant learns from.
_NOT_LEARNT_FROM = ("name", "output", "seed", "data.train", "data.validation")
_SECTIONS_NOT_LEARNT_FROM = ("launch.", "few_shot.")
_FAMILIES = {
    frozenset({"imu_near"}): "near in time",
    frozenset({"imu_imu"}): "self-supervised",
    frozenset({"imu_video", "imu_text"}): "multimodal",
    frozenset({"neighbour_imu", "neighbour_video", "neighbour_text"}): "neighbours",
}
_WAYS = {"session": "whole sessions", "window": "windows of every session"}


class TermSets(NamedTuple):
    """families: terms that are on and off together, by a name; on: those that each variant has."""

    families: dict[str, frozenset[str]]
    on: dict[str, frozenset[str]]

    def pairs(self, family: str) -> list[tuple[str, str]]:
        """Variants with and without ``family`` that have the same other families."""
        by_set = {names: variant for variant, names in self.on.items()}
        without = {names: by_set.get(names - {family}) for names in by_set if family in names}
        return [(by_set[names], other) for names, other in without.items() if other is not None]


class Point(NamedTuple):
    """A variant, and the value that it has of the setting that a chart is about."""

    value: Any
    variant: str


def settings_of_runs(study: Study, out: Path, trials: Sequence[Trial]) -> dict[str, Settings]:
    """The settings of each variant that has a run, as its first one has written them.

    With what the study leaves out of its data: the names in a text, None where it leaves out none.
    """
    found: dict[str, Settings] = {}
    for trial in trials:
        path = trial.folder(out) / CONFIG_FILE
        if trial.variant not in found and path.is_file():
            tree = load_config(path).model_dump(mode="json")
            learnt_from = {
                key: value
                for key, value in _flat(tree).items()
                if key not in _NOT_LEARNT_FROM and not key.startswith(_SECTIONS_NOT_LEARNT_FROM)
            }
            variant = study.variants.get(trial.variant, Variant())
            left_out = {
                f"pretrain_without.{by}": ", ".join(names)
                for by, names in variant.pretrain_without.named.items()
            }
            found[trial.variant] = learnt_from | left_out
    return found


def differences_of(settings: Mapping[str, Settings], reference: str) -> dict[str, Settings]:
    """The settings in which each other variant differs from ``reference``; None: it has none."""
    base = settings.get(reference, {})
    return {
        name: {key: of.get(key) for key in {**base, **of} if of.get(key) != base.get(key)}
        for name, of in settings.items()
        if name != reference and base
    }


def term_sets(settings: Mapping[str, Settings], reference: str) -> TermSets | None:
    """The families of terms that variants have or lack; None where fewer than two variants do.

    Such a variant has each term with the weight that the others with it have, or not at all.
    """
    different = differences_of(settings, reference)
    chosen = [reference, *(name for name, of in different.items() if _is_of_weights(of))]
    weights = {
        name: {
            key.removeprefix(WEIGHTS): value
            for key, value in settings[name].items()
            if key.startswith(WEIGHTS)
        }
        for name in chosen
        if name in settings
    }
    usual = {}
    for term in {term for of in weights.values() for term in of}:
        held = [of[term] for of in weights.values() if of.get(term)]
        usual[term] = held[0] if held else 0.0
    on = {
        name: frozenset(term for term, weight in of.items() if weight)
        for name, of in weights.items()
        if all(weight in (0.0, usual[term]) for term, weight in of.items())
    }
    by_pattern: dict[tuple[bool, ...], set[str]] = {}
    for term in sorted(usual):
        pattern = tuple(term in terms for terms in on.values())
        if any(pattern) and not all(pattern):
            by_pattern.setdefault(pattern, set()).add(term)
    if len(on) < 2 or not by_pattern:
        return None
    used = {term for terms in on.values() for term in terms}
    named = {_family_name(terms, used): frozenset(terms) for terms in by_pattern.values()}
    families = {name: named[name] for name in sorted(named, key=_family_order)}
    return TermSets(
        families,
        {
            variant: frozenset(name for name, terms in families.items() if terms <= of)
            for variant, of in on.items()
        },
    )


def single_settings(settings: Mapping[str, Settings], reference: str) -> dict[str, list[Point]]:
    """Settings that some variant changes alone, with the variants by value, the reference's too.

    Weights that variants switch off are those of ``term_sets``; shares of the data have a chart of
    their own. Numbers are in their order, other values in that of the variants.
    """
    found: dict[str, list[Point]] = {}
    for name, of in differences_of(settings, reference).items():
        if len(of) == 1:
            ((key, value),) = of.items()
            if key not in (SHARE, SHARE_BY) and not (key.startswith(WEIGHTS) and not value):
                found.setdefault(key, []).append(Point(value, name))
    for key, points in found.items():
        points.insert(0, Point(settings[reference].get(key), reference))
        if all(_is_number(point.value) for point in points):
            points.sort(key=lambda point: float(point.value))
    return found


def shares_of_data(settings: Mapping[str, Settings], reference: str) -> dict[str, list[Point]]:
    """Lines of variants that differ in their share of the data only, by what they are.

    All of the data are the same however a share would be chosen, so such a variant is in the lines
    of both ways. Empty where the share does not vary.
    """
    shares = {name: of.get(SHARE) for name, of in settings.items()}
    if reference not in shares or len(set(shares.values())) < 2:  # its trials may have failed
        return {}
    different = {reference: {}, **differences_of(settings, reference)}
    groups: dict[str, dict[str, list[Point]]] = {}
    for name, of in different.items():
        rest = repr(
            sorted((key, value) for key, value in of.items() if key not in (SHARE, SHARE_BY))
        )
        way = "" if shares[name] == 1 else str(settings[name][SHARE_BY])
        groups.setdefault(rest, {}).setdefault(way, []).append(Point(shares[name], name))
    several = [ways for ways in groups.values() if ways.keys() - {""}]
    lines = {}
    for ways in several:
        whole = ways.pop("", [])
        for way, points in ways.items():
            line = sorted([*points, *whole])
            parts = [_stem(line[-1].variant)] * (len(several) > 1)
            parts += [_WAYS.get(way, way)] * (len(ways) > 1 or len(several) == 1)
            lines[", ".join(parts)] = line
    return {name: line for name, line in lines.items() if len(line) > 1}


def describe_value(value: Any) -> str:
    """A value of a setting on an axis."""
    return f"{value:g}" if _is_number(value) else "none" if value is None else str(value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _is_of_weights(different: Settings) -> bool:
    return bool(different) and all(key.startswith(WEIGHTS) for key in different)


def _family_name(terms: set[str], used: set[str]) -> str:
    """The name of the terms that are all of a family that some variant uses; or the terms."""
    for family, name in _FAMILIES.items():
        if terms == family & used:
            return name
    return " + ".join(sorted(terms))


def _family_order(name: str) -> tuple[int, str]:
    known = list(_FAMILIES.values())
    return (known.index(name) if name in known else len(known), name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _stem(variant: str) -> str:
    """A variant's name without the number at its end: ``near_100`` is ``near``."""
    return variant.rstrip("0123456789.").rstrip("_-") or variant
