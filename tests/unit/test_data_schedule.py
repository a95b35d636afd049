"""The order of data: every window once an epoch, and a pure function of seed, epoch and step."""

import numpy as np
import pytest

from primus_scale.data.schedule import Schedule

SIZES = {
    "equal": [16] * 12,
    "uneven": [3, 5, 1, 7, 2, 2, 9, 16, 1, 4, 30],
    "window records": [1] * 50,
    "one record": [37],
}


def epoch_pairs(schedule, epoch):
    batches = [schedule.batch_rows(epoch, step) for step in range(schedule.steps_per_epoch)]
    return [
        list(zip(batch.records.tolist(), batch.rows.tolist(), strict=True)) for batch in batches
    ]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("batch", [1, 8, 13, 1000])
@pytest.mark.parametrize("shuffle_blocks", [1, 3, 100])
def test_every_window_once_an_epoch(sizes, batch, shuffle_blocks):
    schedule = Schedule(sizes, batch, shuffle_blocks, seed=0)
    for epoch in (0, 1):
        batches = epoch_pairs(schedule, epoch)
        everything = [(record, row) for record, size in enumerate(sizes) for row in range(size)]
        assert sorted(pair for pairs in batches for pair in pairs) == everything
        assert [len(pairs) for pairs in batches[:-1]] == [batch] * (len(batches) - 1)
        assert 1 <= len(batches[-1]) <= batch


def test_any_step_without_those_before():
    whole = epoch_pairs(Schedule(SIZES["uneven"], 8, 3, seed=5), epoch=4)
    for step in reversed(range(len(whole))):
        fresh = Schedule(SIZES["uneven"], 8, 3, seed=5).batch_rows(4, step)
        pairs = list(zip(fresh.records.tolist(), fresh.rows.tolist(), strict=True))
        assert pairs == whole[step]


def test_epochs_and_seeds_differ():
    orders = [
        epoch_pairs(Schedule([8] * 8, 8, 2, seed), epoch) for seed in (-1, 0, 1) for epoch in (0, 1)
    ]
    assert len({str(order) for order in orders}) == len(orders)


def test_windows_of_a_group_are_mixed_and_no_more():
    """A batch draws on the records of its groups only, and on all of them."""
    schedule = Schedule([64] * 12, 64, shuffle_blocks=4, seed=0)
    records = [set(schedule.batch_rows(0, step).records.tolist()) for step in range(12)]
    for group in range(3):
        assert len(set.union(*records[4 * group : 4 * group + 4])) == 4
        assert all(len(seen) == 4 for seen in records[4 * group : 4 * group + 4])


def test_windows_of_a_batch_stand_by_record():
    for pairs in epoch_pairs(Schedule(SIZES["uneven"], 13, 3, seed=2), epoch=1):
        assert pairs == sorted(pairs)


def test_positions_are_uniform():
    """A window is as likely at any place of the epoch as at any other (mean and deviation)."""
    places = []
    for seed in range(400):
        order = [pair for pairs in epoch_pairs(Schedule([4] * 5, 1, 2, seed), 0) for pair in pairs]
        places.append(order.index((2, 1)))
    # Uniform over 0..19: mean 9.5 and deviation 5.77, so the mean of 400 has deviation 0.29.
    assert np.mean(places) == pytest.approx(9.5, abs=4 * 0.29)
    assert np.std(places) == pytest.approx(5.77, abs=0.6)


def test_order_is_pinned():
    """Runs of other days and machines must see this order: it may never change."""
    rows = Schedule([3, 5, 1, 7], 6, 2, seed=11).batch_rows(epoch=2, step=1)
    assert rows.records.tolist() == [1, 1, 1, 3, 3, 3]
    assert rows.rows.tolist() == [1, 2, 4, 0, 2, 3]


def test_locate():
    schedule = Schedule([10, 5], 4, 1, seed=0)
    assert schedule.steps_per_epoch == 4
    assert [schedule.locate(step) for step in (0, 3, 4, 9)] == [(0, 0), (0, 3), (1, 0), (2, 1)]


def test_bad_input():
    with pytest.raises(ValueError, match="at least one window"):
        Schedule([], 4, 1, seed=0)
    with pytest.raises(ValueError, match="step 4 is not within the 4"):
        Schedule([10, 5], 4, 1, seed=0).batch_rows(0, 4)
