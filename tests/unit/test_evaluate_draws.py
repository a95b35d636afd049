from dataclasses import replace

import numpy as np
import pytest
import torch

from primus_scale.evaluate.draws import (
    LabelledWindows,
    check_sides,
    choose_windows,
    hold_out_people,
    keyed_generator,
    keyed_seed,
    possible_labels,
)
from tests.few_shot_task import make_side

LABEL = make_side(range(6), windows_each=4)
ROWS = np.arange(len(LABEL))


@pytest.mark.parametrize("k", [1, 3, 6, 10])
def test_k_of_each_class_spread_over_people(k):
    chosen = choose_windows(LABEL, k, keyed_generator("draw", 0), ROWS)
    assert len(set(chosen)) == 3 * k
    for class_id in range(3):
        people = LABEL.person[chosen[LABEL.label[chosen] == class_id]]
        counts = np.unique(people, return_counts=True)[1]
        assert len(people) == k
        assert len(counts) == min(k, 6)
        assert counts.max() - counts.min() <= 1


def test_smaller_k_is_part_of_larger_and_draws_differ():
    few = choose_windows(LABEL, 2, keyed_generator("draw", 0), ROWS)
    more = choose_windows(LABEL, 5, keyed_generator("draw", 0), ROWS)
    other = choose_windows(LABEL, 2, keyed_generator("draw", 1), ROWS)
    assert set(few) < set(more)
    assert set(few) != set(other)


def test_only_the_given_rows_are_chosen_and_all_means_all():
    rows = ROWS[LABEL.person != "person-0"]
    assert set(choose_windows(LABEL, 5, keyed_generator(0), rows)) <= set(rows)
    assert set(choose_windows(LABEL, "all", keyed_generator(0), rows)) == set(rows)


def test_held_out_people_are_apart():
    learning, validation = hold_out_people(LABEL, keyed_generator("trial", 0))
    assert not set(LABEL.person[learning]) & set(LABEL.person[validation])
    assert len(set(LABEL.person[validation])) == 2
    assert len(learning) + len(validation) == len(LABEL)


def test_sides_that_make_no_task_are_refused():
    test = make_side(range(10, 12))
    check_sides(LABEL, test)
    with pytest.raises(ValueError, match="people person-5 are in label/ and in test/"):
        check_sides(LABEL, make_side(range(5, 8)))
    with pytest.raises(ValueError, match="one person only"):
        check_sides(make_side(range(1)), test)
    with pytest.raises(ValueError, match="names the classes"):
        check_sides(LABEL, replace(test, classes=("a", "b", "c")))
    with pytest.raises(ValueError, match="50 Hz"):
        check_sides(LABEL, replace(test, imu=test.imu[..., :-1]))


def with_classes(each: list[tuple[int, ...]]) -> LabelledWindows:
    """Windows of one person for each entry, who has only the classes that it names."""
    whole = make_side(range(len(each)), windows_each=2)
    kept = [
        whole.label[i] in each[int(whole.person[i].removeprefix("person-"))]
        for i in range(len(whole))
    ]
    rows = np.flatnonzero(kept)
    return replace(whole, imu=whole.imu[rows], label=whole.label[rows], person=whole.person[rows])


@pytest.mark.parametrize(
    "each",
    [
        [(0,), (1,)],
        [(0, 1, 2), (2,)],
        [(0,), (0,), (0,), (1,)],
        [(0,), (0,), (1,), (2,)],
        [(1,), (1,), (1,)],
    ],
)
def test_people_of_whom_none_can_judge_are_refused_by_name(each):
    label = with_classes(each)
    with pytest.raises(ValueError, match="two classes with windows of two people each") as error:
        check_sides(label, make_side(range(10, 12)))
    for number, classes in enumerate(each):
        names = ", ".join(label.classes[c] for c in classes)
        assert f"person-{number} has {names}" in str(error.value)
    assert "more people" in str(error.value)


def test_many_people_of_whom_none_can_judge_make_a_short_message():
    with pytest.raises(ValueError, match="two people each") as error:
        check_sides(with_classes([(0,)] * 30 + [(1,)]), make_side(range(40, 42)))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "each",
    [
        [(0, 1), (0, 1)],
        [(0,), (0,), (1,), (1,)],
        [(0, 1), (0,), (1,)],
        [(0,)] * 40 + [(1,)] * 2,
        [(0, 1, 2), (0, 1, 2), (2,)],
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_held_out_people_can_judge_whenever_any_can(each, seed):
    """Two classes on both sides, however few people have them."""
    label = with_classes(each)
    check_sides(label, make_side(range(50, 52)))
    learning, validation = hold_out_people(label, keyed_generator("trial", seed))
    assert len(set(label.label[learning]) & set(label.label[validation])) >= 2
    assert not set(label.person[learning]) & set(label.person[validation])


def test_sides_without_windows_or_with_bad_samples_are_refused():
    none = np.zeros(0, dtype=np.int64)
    test = make_side(range(10, 12))
    empty = replace(test, imu=test.imu[:0], label=none, person=none.astype(str))
    with pytest.raises(ValueError, match="label/ holds no window with a label"):
        check_sides(empty, test)
    with pytest.raises(ValueError, match="test/ holds no window with a label"):
        check_sides(LABEL, empty)
    imu = test.imu.clone()
    imu[0, 2, 3], imu[4, 1, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="test/: 2 of 48 windows hold NaN"):
        check_sides(LABEL, replace(test, imu=imu))


def test_k_beyond_the_rarest_class_is_left_out_and_told():
    lines: list[str] = []
    assert possible_labels(LABEL, (1, 24, 25, "all"), lines.append) == [1, 24, "all"]
    assert lines == ["k = 25 is left out: class 'still' has 24 windows"]
    with pytest.raises(ValueError, match="smaller k"):
        possible_labels(LABEL, (25,), lines.append)
    with pytest.raises(ValueError, match="no window of jump"):
        possible_labels(replace(LABEL, classes=(*LABEL.classes, "jump")), (1,), lines.append)


def test_a_class_of_one_person_is_reported():
    kept = (LABEL.label != 2) | (LABEL.person == "person-3")
    lone = replace(
        LABEL, label=LABEL.label[kept], person=LABEL.person[kept], imu=LABEL.imu[torch.tensor(kept)]
    )
    lines = []
    assert possible_labels(lone, (1, 4), lines.append) == [1, 4]
    assert len(lines) == 1 and lines[0].startswith("one person alone has windows of fast in label/")


def test_keys_give_seeds_of_their_own():
    assert keyed_seed("draw", 0, 1) == keyed_seed("draw", 0, 1)
    assert len({keyed_seed("draw", seed, draw) for seed in range(5) for draw in range(5)}) == 25
