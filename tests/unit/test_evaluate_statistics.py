import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from primus_scale.evaluate.statistics import (
    Interval,
    accuracy,
    confusion_by_person,
    confusion_counts,
    expanded_tail,
    jackknife_deviation,
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
    many = interval([10, 0, 30, 9, 8, 9, 9, 9], [10, 10, 30, *[10] * 5])
    assert 0 < many.low < many.mean < many.high < 1
    perfect = interval([7, 9], [7, 9])
    assert (perfect.low, perfect.mean, perfect.high) == (1.0, 1.0, 1.0)


def test_interval_is_the_expanded_percentile_of_all_resamples():
    """Eight people: orders do not matter, so the resamples are C(15, 8) ways to share 8 draws."""
    correct = np.array([10, 31, 18, 44, 12, 30, 25, 33])
    total = np.array([40, 40, 30, 50, 30, 40, 40, 40])
    chosen = np.array(list(itertools.combinations_with_replacement(range(8), 8)))
    weights = np.stack([(chosen == person).sum(1) for person in range(8)], axis=1)
    ways = [math.factorial(8) / math.prod(map(math.factorial, row)) for row in weights.tolist()]
    values = (weights @ correct) / (weights @ total)
    order = np.argsort(values)
    below = np.cumsum(np.array(ways)[order]) / 8**8
    # t of 7 degrees of freedom at 2.5 % is -2.365; times sqrt(8 / 7) that is -2.528, of which the
    # normal distribution has 0.573 % below it
    low, high = (values[order][np.searchsorted(below, tail)] for tail in (0.00573, 1 - 0.00573))
    found = interval(correct, total)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    assert expanded_tail(8) == pytest.approx(0.00573, rel=0.01)


def test_interval_of_few_people_is_not_narrower_than_students():
    """For equal windows the mean of people, their deviation over sqrt(P), and t from a table."""
    shares = np.array([0.6, 0.75, 0.7, 0.85])
    found = interval(100 * shares, [100] * 4)
    reach = 3.182 * shares.std(ddof=1) / 2
    assert found.low == pytest.approx(shares.mean() - reach, abs=1e-4)
    assert found.high == pytest.approx(shares.mean() + reach, abs=1e-4)
    assert interval([50, 95], [100, 100]).high == 1.0  # t is 12.7 with two people


def test_jackknife_deviation_of_a_mean_is_its_standard_error():
    shares = np.random.default_rng(0).uniform(size=9)
    statistic = share_correct(20 * shares, np.full(9, 20.0))
    assert jackknife_deviation(statistic, 9) == pytest.approx(shares.std(ddof=1) / 3)


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
