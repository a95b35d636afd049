"""Check that the figures of a results file follow from the answers that it holds.

check_results(results, "runs/demo/few_shot/few_shot.json")

``few_shot.json`` keeps the answers of each tested person. All of its tables are made from them
(``results.assemble``), so a table that was edited, or that another version made, shows here. What
has no answers beside it (retrieval, the map, costs, descriptions) cannot be checked.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from primus_scale.evaluate.results import assemble
from primus_scale.evaluate.statistics import accuracy, macro_f1
from primus_scale.evaluate.zero_shot import summarise_zero_shot
from primus_scale.storage.foreign import decoding

TABLES = ("few_shot", "macro_f1", "paired", "mixed", "confusion", "zero_shot")
TOLERANCE = 1e-9  # of figures; the same sums may be rounded in another way elsewhere
AGAIN = "run primus-scale evaluate again"


def check_results(results: Mapping[str, Any], where: str) -> None:
    """ValueError naming the first field of the file ``where`` that its answers do not give."""
    with decoding(where, advice=AGAIN):
        try:
            problem = next(_differences(results), None)
        except KeyError as error:
            problem = f"a record or a run lacks the field {error}"
    if problem is not None:
        raise ValueError(f"{where}: {problem}: it was edited, or another version wrote it; {AGAIN}")


def _differences(results: Mapping[str, Any]) -> Iterator[str]:
    zero_shot = results.get("zero_shot") or {"records": [], "prompts": {}}
    for field, records in (("records", results), ("zero_shot.records", zero_shot)):
        for number, record in enumerate(records["records"]):
            yield from _of_record(f"{field}.{number}", record, len(results["classes"]))
    made: dict[str, Any] = assemble(
        results["runs"],
        results["records"],
        classes=results["classes"],
        protocol={**results["protocol"], "mixed_model": _can_fit_mixed(results)},
    )
    if zero_shot["records"]:
        made["zero_shot"] = summarise_zero_shot(zero_shot["records"], zero_shot["prompts"])
    made = json.loads(json.dumps(made))
    for table in TABLES:
        if table in made or (table in results and table != "mixed"):
            yield from _compare(table, results.get(table), made.get(table))


def _can_fit_mixed(results: Mapping[str, Any]) -> bool:
    return "mixed" in results and importlib.util.find_spec("statsmodels") is not None


def _of_record(field: str, record: Mapping[str, Any], classes: int) -> Iterator[str]:
    """Whether the counts of each person, and the scores over all, belong together."""
    counts = {name: np.array(of["confusion"]) for name, of in record["people"].items()}
    for name, of in counts.items():
        place = f"{field}.people.{name}.confusion"
        if of.shape != (classes, classes) or of.dtype.kind != "i" or of.min() < 0:
            yield f"{place} is no table of {classes} x {classes} counts"
            return
        given = record["people"][name]
        for what, count in (("correct", np.trace(of)), ("total", of.sum())):
            yield from _compare(f"{field}.people.{name}.{what}", given[what], int(count))
    total = np.sum([*counts.values()], axis=0)
    yield from _compare(f"{field}.accuracy", record["accuracy"], accuracy(total))
    yield from _compare(f"{field}.macro_f1", record["macro_f1"], float(macro_f1(total)))


def _compare(field: str, given: Any, made: Any) -> Iterator[str]:
    """Where a tree of figures differs from the one that was made of the answers."""
    if isinstance(made, dict) and isinstance(given, dict):
        for key in [*made, *(key for key in given if key not in made)]:
            if key in made and key in given:
                yield from _compare(f"{field}.{key}", given[key], made[key])
            else:
                yield f"{field}.{key} is {'missing' if key in made else 'of no answers'}"
    elif isinstance(made, list) and isinstance(given, list) and len(made) == len(given):
        for number, pair in enumerate(zip(given, made, strict=True)):
            yield from _compare(f"{field}.{number}", *pair)
    elif not _equal(given, made):
        yield f"{field} is {given!r}, but the answers give {made!r}"


def _equal(given: Any, made: Any) -> bool:
    numbers = isinstance(given, int | float) and isinstance(made, int | float)
    if not numbers or isinstance(given, bool):
        return bool(given == made)
    return math.isclose(given, made, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
