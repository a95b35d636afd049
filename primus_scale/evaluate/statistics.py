"""Scores from confusion counts, and intervals over the people who were tested.

Shapes: P people, C classes, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4999
SEED = 0  # of the resamples: equal results give equal intervals
FEW_PEOPLE = 8  # below, resamples of the people do not reach far enough
_AT_ONCE = 500  # resamples of one call

Statistic = Callable[[np.ndarray], np.ndarray]  # of weights (B, P) to values (B,)


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % interval over people."""

    mean: float
    low: float
    high: float
    people: int

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def people_interval(statistic: Statistic, people: int, bounds: tuple[float, float]) -> Interval:
    """The value of ``statistic`` and its bootstrap interval, with people as the units.

    statistic: a measure of weighted people, ``(B, P)`` to ``(B,)``; a weight says how often a
    person is in a resample. bounds: least and greatest value that the measure can have.

    People are drawn with replacement (``scipy.stats.bootstrap``). The interval is between two
    quantiles of the resampled values, so it is always in the range of the measure. The 2.5 and
    97.5 % quantiles would be too narrow for few people, for two reasons: the variance of resamples
    divides by P, not by P - 1, and the normal distribution takes the place of Student's t. Outer
    quantiles correct both (the expanded percentile interval, Hesterberg 2015, "What Teachers
    Should Know About the Bootstrap"): with the distribution functions Phi of the normal and t of
    Student's t with P - 1 degrees of freedom, the lower one is at

        Phi( sqrt(P / (P - 1)) * t^-1(0.025) ).

    No resample lies beyond the best and the worst person, and few people may all be on one side of
    the truth. So below ``FEW_PEOPLE`` the interval also holds Student's, mean -+ t * s, with the
    jackknife's deviation s (Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
    section 11.2), cut at ``bounds``. One person says nothing about others: the interval is then
    ``bounds``.

    In simulated experiments 94 to 96 % of such intervals hold the truth, from two people on. Where
    most people are close to a bound (accuracy 90 %, beta distribution 9 : 1) it is 90 to 93 % with
    3 to 20 people, since the rare low ones are often not among them.
    """
    if people == 0:
        raise ValueError("an interval over no people was asked for; test on at least one person")
    mean = float(statistic(np.ones((1, people)))[0])
    if people == 1:
        return Interval(mean, *bounds, people)

    def of_chosen(chosen: np.ndarray, axis: int) -> np.ndarray:
        rows = np.moveaxis(chosen, axis, -1).reshape(-1, people)
        places = rows + people * np.arange(len(rows))[:, None]
        weights = np.bincount(places.ravel(), minlength=len(rows) * people)
        return statistic(weights.reshape(-1, people).astype(np.float64))

    low, high = stats.bootstrap(
        (np.arange(people),),
        of_chosen,
        n_resamples=RESAMPLES,
        batch=_AT_ONCE,
        vectorized=True,
        confidence_level=1 - 2 * expanded_tail(people),
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    if people < FEW_PEOPLE:
        reach = float(stats.t.ppf(0.5 + LEVEL / 2, people - 1)) * jackknife_deviation(
            statistic, people
        )
        low = max(min(low, mean - reach), bounds[0])
        high = min(max(high, mean + reach), bounds[1])
    return Interval(mean, float(low), float(high), people)


def jackknife_deviation(statistic: Statistic, people: int) -> float:
    """The standard error of ``statistic``, from its values without each person in turn.

    sqrt( (P - 1) / P * sum over persons p of (v_p - mean v)^2 ), with v_p the value without p.
    """
    values = statistic(1 - np.eye(people))
    return float(np.sqrt((people - 1) * np.var(values)))


def expanded_tail(people: int) -> float:
    """Share of resampled values beyond each end of the interval; see ``people_interval``."""
    t = stats.t.ppf(0.5 - LEVEL / 2, people - 1)
    return float(stats.norm.cdf(np.sqrt(people / (people - 1)) * t))


def share_correct(correct: np.ndarray, total: np.ndarray) -> Statistic:
    """Accuracy of weighted people, from correct answers and windows of each, both ``(P,)``."""
    return lambda weights: (weights @ correct) / (weights @ total)


def mean_macro_f1(confusions: np.ndarray) -> Statistic:
    """Mean macro-F1 of N tests with weighted people, from confusion counts ``(N, P, C, C)``."""
    tests, people, classes, _ = confusions.shape
    flat = confusions.astype(np.float64).transpose(1, 0, 2, 3).reshape(people, -1)

    def value(weights: np.ndarray) -> np.ndarray:
        counts = (weights @ flat).reshape(len(weights), tests, classes, classes)
        # If not all people were in all tests, some tests of a resample may have no window.
        held = counts.any(axis=(2, 3))
        scores = np.where(held, macro_f1(counts), 0.0)
        return scores.sum(axis=1) / held.sum(axis=1)

    return value


def confusion_counts(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(C, C)``, true classes down and predicted ones across."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_by_person(
    true: np.ndarray, predicted: np.ndarray, person: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Confusion counts ``(C, C)`` of each person's windows, people in order of their names."""
    names = person.astype(str)
    return {
        name: confusion_counts(true[names == name], predicted[names == name], classes)
        for name in np.unique(names).tolist()
    }


def score_people(
    true: np.ndarray, predicted: np.ndarray, person: np.ndarray, classes: int
) -> dict[str, Any]:
    """What is kept of answers, for JSON: ``accuracy``, ``macro_f1`` and ``people`` by name.

    true, predicted ``(n,)``: class ids. Of each person ``correct``, ``total`` and the ``confusion``
    counts ``(C, C)``.
    """
    people = confusion_by_person(true, predicted, person, classes)
    counts = total_confusion(people)
    return {
        "accuracy": accuracy(counts),
        "macro_f1": float(macro_f1(counts)),
        "people": {
            name: {
                "correct": int(np.trace(of_person)),
                "total": int(of_person.sum()),
                "confusion": of_person.tolist(),
            }
            for name, of_person in people.items()
        },
    }


def total_confusion(by_person: Mapping[str, np.ndarray]) -> np.ndarray:
    """Confusion counts ``(C, C)`` of all people together."""
    return np.sum(list(by_person.values()), axis=0)


def accuracy(counts: np.ndarray) -> float:
    """Share of windows on the diagonal."""
    return float(np.trace(counts) / counts.sum())


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 score of the classes that occur as true or as predicted; 0 if none does.

    The F1 score of a class with h hits, n true and m predicted windows is 2 h / (n + m). counts
    ``(..., C, C)`` to ``(...,)``.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    occurrences = counts.sum(axis=-2) + counts.sum(axis=-1)
    seen = occurrences > 0
    scores = np.divide(2 * hits, occurrences, out=np.zeros(hits.shape), where=seen)
    return scores.sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1)
