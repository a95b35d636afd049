"""Ranks of competitors over several tasks, and which of them differ.

Sources: Friedman, JASA 1937; Nemenyi 1963; Demsar, "Statistical Comparisons of Classifiers over
Multiple Data Sets", JMLR 2006, sections 3.2.2 and 3.2.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEAST_COMPETITORS = LEAST_TASKS = 3  # fewer of either show nothing


@dataclass(frozen=True)
class Ranks:
    """Competitors by their mean rank over tasks, the best first.

    friedman_p: of equal ranks of all. critical: the least difference of two mean ranks that is one,
    at 5 % for all pairs together. tasks: how many.
    """

    mean: dict[str, float]
    friedman_p: float
    critical: float
    tasks: int

    def groups(self) -> list[list[str]]:
        """Neighbours in rank of which no two differ; each group as large as it can be."""
        names, found = list(self.mean), []
        reached = 0
        for start, name in enumerate(names):
            end = start
            while end < len(names) and self.mean[names[end]] - self.mean[name] < self.critical:
                end += 1
            if end - start > 1 and end > reached:
                found.append(names[start:end])
                reached = end
        return found


def rank_competitors(scores: Mapping[str, Sequence[float]]) -> Ranks | None:
    """Rank competitors by their scores on the same tasks; higher is better, ties share a rank.

    None where there are fewer than three competitors or tasks.
    """
    table = np.array(list(scores.values()), dtype=np.float64)
    if len(table) < LEAST_COMPETITORS or table.shape[1] < LEAST_TASKS:
        return None
    number, tasks = table.shape
    mean = stats.rankdata(-table, axis=0).mean(axis=1)
    order = np.argsort(mean, kind="stable")
    names = list(scores)
    equal = np.ptp(table, axis=0).max() == 0  # the statistic would be 0 / 0
    return Ranks(
        {names[place]: float(mean[place]) for place in order},
        1.0 if equal else float(stats.friedmanchisquare(*table).pvalue),
        critical_difference(number, tasks),
        tasks,
    )


def critical_difference(competitors: int, tasks: int, level: float = 0.95) -> float:
    """Nemenyi's: q * sqrt(k (k + 1) / (6 N)), q of the studentized range over the root of 2."""
    q = stats.studentized_range.ppf(level, competitors, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(competitors * (competitors + 1) / (6 * tasks)))
