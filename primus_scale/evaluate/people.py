"""What single people get: each test person's accuracy, and how many of them gain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from primus_scale.evaluate.mixed_model import gains_of_people
from primus_scale.evaluate.results import records_by_arm


def accuracy_of_people(results: Mapping[str, Any], k: str) -> dict[str, dict[str, float]]:
    """Each arm's accuracy on each test person, as shares of 1: {arm: {person: accuracy}}.

    Windows of all draws, pretraining seeds and splits count together.
    """
    found = {}
    for arm, records in _records(results, k).items():
        answers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for record in records.values():
            for person, counts in record["people"].items():
                answers[person].append((counts["correct"], counts["total"]))
        sums = {person: np.sum(pairs, axis=0) for person, pairs in sorted(answers.items())}
        found[arm] = {person: float(correct / total) for person, (correct, total) in sums.items()}
    return found


def count_gaining(results: Mapping[str, Any], k: str, arm: str, baseline: str) -> tuple[int, int]:
    """How many people ``arm`` serves better than ``baseline``, and how many worse.

    On the labels that both have; people with no difference are in neither number.
    """
    records = _records(results, k)
    gains, people, _ = gains_of_people(records[arm], records[baseline])
    of_person: dict[str, list[float]] = defaultdict(list)
    for person, gain in zip(people, gains.tolist(), strict=True):
        of_person[person].append(gain)
    mean = np.array([np.mean(values) for values in of_person.values()])
    return int((mean > 0).sum()), int((mean < 0).sum())


def _records(results: Mapping[str, Any], k: str) -> dict[str, dict[Any, Mapping[str, Any]]]:
    return records_by_arm(record for record in results["records"] if record["k"] == k)
