import itertools

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from primus_scale.evaluate.statistics import (
    Interval,
    accuracy,
    confusion_by_person,
    confusion_counts,
    expanded_tail,
    macro_f1,
    mean_macro_f1,
    people_interval,
    share_correct,
    total_confusion,
)


def interval(correct, total):
    return people_interval(
        share_correct(np.array(correct, float), np.array(total, float)), len(correct), (0.0, 1.0)
    )


def test_mean_counts_windows_and_interval_stays_within_what_accuracy_can_be():
    few = interval([10, 0, 30], [10, 10, 30])
    assert few.mean == pytest.approx(40 / 50)
    assert 0 <= few.low < few.mean < few.high <= 1
    assert few.people == 3
    perfect = interval([7, 9], [7, 9])
    assert (perfect.low, perfect.mean, perfect.high) == (1.0, 1.0, 1.0)


def test_interval_is_the_expanded_percentile_of_all_resamples():
    """Four people have 4 ** 4 equally likely resamples: their quantiles are exact."""
    correct, total = np.array([10, 31, 18, 44]), np.array([40, 40, 30, 50])
    chosen = np.array(list(itertools.product(range(4), repeat=4)))
    values = correct[chosen].sum(1) / total[chosen].sum(1)
    # t of 3 degrees of freedom at 2.5 % is -3.182; times sqrt(4 / 3) that is -3.675, of which the
    # normal distribution has 0.000119 below it
    low, high = np.quantile(values, (0.000119, 1 - 0.000119))
    found = interval(correct, total)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    assert expanded_tail(4) == pytest.approx(0.000119, rel=0.01)


def test_one_person_says_nothing_of_others_and_none_is_refused():
    assert interval([3], [4]) == Interval(mean=0.75, low=0.0, high=1.0, people=1)
    with pytest.raises(ValueError, match="at least one person"):
        interval([], [])


def test_weighted_macro_f1_is_that_of_the_people_repeated():
    rng = np.random.default_rng(2)
    confusions = rng.integers(0, 9, (3, 4, 3, 3))
    statistic = mean_macro_f1(confusions)
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1]])
    for row, value in zip(weights, statistic(weights.astype(float)), strict=True):
        summed = np.einsum("p,npij->nij", row, confusions)
        assert value == pytest.approx(np.mean([float(macro_f1(counts)) for counts in summed]))


def test_confusion_by_person_adds_up():
    rng = np.random.default_rng(3)
    true, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    person = rng.permutation(np.repeat(["b", "a", "c"], 30))
    by_person = confusion_by_person(true, predicted, person, 3)
    assert list(by_person) == ["a", "b", "c"]
    is_a = person == "a"
    assert np.trace(by_person["a"]) == np.sum(true[is_a] == predicted[is_a])
    assert np.array_equal(total_confusion(by_person), confusion_counts(true, predicted, 3))


def test_scores_equal_scikit_learns():
    rng = np.random.default_rng(1)
    true, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    counts = confusion_counts(true, predicted, 4)
    assert counts[2, 1] == np.sum((true == 2) & (predicted == 1))
    assert accuracy(counts) == pytest.approx(accuracy_score(true, predicted))
    assert macro_f1(counts) == pytest.approx(f1_score(true, predicted, average="macro"))


def test_macro_f1_leaves_out_a_class_that_never_occurs():
    counts = confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    assert macro_f1(counts) == pytest.approx((2 / 3 + 2 / 3) / 2)
