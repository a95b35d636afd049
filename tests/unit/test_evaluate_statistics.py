import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from primus_scale.evaluate.statistics import accuracy, confusion_counts, macro_f1, mean_interval


def test_interval_is_that_of_the_t_table():
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    # deviation sqrt(2.5), error sqrt(0.5); t of 4 degrees of freedom at 97.5 % is 2.776
    assert interval.mean == 3.0
    assert interval.high - 3.0 == pytest.approx(2.776 * 0.5**0.5, rel=1e-3)
    assert 3.0 - interval.low == pytest.approx(interval.high - 3.0)
    assert interval.n == 5


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(7.0, 2.0, size=6)) for _ in range(2000)]
    assert 0.93 < np.mean([i.low < 7.0 < i.high for i in intervals]) < 0.97


def test_single_value_has_no_width_and_none_is_refused():
    assert mean_interval([0.5]) == mean_interval(np.array([0.5]))
    assert mean_interval([0.5]).low == mean_interval([0.5]).high == 0.5
    with pytest.raises(ValueError, match="at least one draw"):
        mean_interval([])


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
