"""The order of data: endless epochs, each window once in each, a pure function of seed and step."""

import numpy as np
import pytest

from primus_scale.data.epoch_order import MixedOrder
from primus_scale.data.schedule import Schedule

SIZES = {
    "equal": [16] * 12,
    "uneven": [3, 5, 1, 7, 2, 2, 9, 16, 1, 4, 30],
    "window records": [1] * 50,
    "one record": [37],
}


def pairs_of(schedule, step):
    rows = schedule.batch_rows(step)
    return list(zip(rows.records.tolist(), rows.rows.tolist(), strict=True))


def everything(sizes):
    return [(record, row) for record, size in enumerate(sizes) for row in range(size)]


def check_epochs(batches, sizes, batch):
    """Full batches without repeats, and every window once an epoch.

    Windows of a batch stand by record, so which of them end an epoch is not told. It is the part
    whose windows were not seen before: what remains of the batch begins the next epoch.
    """
    assert [len(pairs) for pairs in batches] == [batch] * len(batches)
    assert all(len(set(pairs)) == batch for pairs in batches)
    left = set(everything(sizes))
    for pairs in batches:
        ending = left & set(pairs)
        assert len(ending) == min(batch, len(left))
        left -= ending
        if len(ending) < batch or not left:
            left = set(everything(sizes)) - (set(pairs) - ending)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("batch", [1, 8, 13, 24, 36, 37])
@pytest.mark.parametrize("shuffle_blocks", [1, 3, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_full_batches_and_every_window_once_an_epoch(sizes, batch, shuffle_blocks, seed):
    schedule = Schedule(MixedOrder(sizes, shuffle_blocks, seed), batch)
    steps = 5 * sum(sizes) // batch
    check_epochs([pairs_of(schedule, step) for step in range(steps)], sizes, batch)


@pytest.mark.parametrize("batch", [1, 7, 13, 40, 41, 79, 80])
def test_batches_are_those_filled_one_window_after_the_other(batch):
    """Against a loop: from the epochs as drawn, always the first window not in the batch yet."""
    sizes, steps = SIZES["uneven"], 60
    single = Schedule(MixedOrder(sizes, 3, seed=4), 1)  # one window a batch: the epochs as drawn
    schedule = Schedule(MixedOrder(sizes, 3, seed=4), batch)
    queue, drawn = [], 0
    for step in range(steps):
        chosen = []
        while len(chosen) < batch:
            if not queue:
                queue = [pair for each in range(80) for pair in pairs_of(single, drawn + each)]
                drawn += 80
            chosen.append(next(pair for pair in queue if pair not in chosen))
            queue.remove(chosen[-1])
        assert pairs_of(schedule, step) == sorted(chosen)


@pytest.mark.parametrize("batch", [8, 13, 45, 79, 80])
def test_any_step_without_those_before(batch):
    """Also of epochs shorter than two batches, whose beginnings depend on each other."""
    sizes = SIZES["uneven"]
    schedule = Schedule(MixedOrder(sizes, 3, seed=5), batch)
    steps = 4 * 80 // batch + 90
    whole = [pairs_of(schedule, step) for step in range(steps)]
    for step in (*range(0, steps, 7), steps - 1):
        assert pairs_of(Schedule(MixedOrder(sizes, 3, seed=5), batch), step) == whole[step]
    assert [pairs_of(schedule, step) for step in reversed(range(steps))] == whole[::-1]


def test_a_late_step_is_found_at_once():
    """The heads of short epochs depend on each other, but not back to the first epoch."""
    order = MixedOrder([16] * 5, 2, seed=0)
    schedule = Schedule(order, 79)
    drawn = []
    draw = order.rows
    order.rows = lambda *where: drawn.append(where) or draw(*where)
    assert len(set(pairs_of(schedule, 10**12 + 78))) == 79
    assert len(drawn) <= 3 * 79


def test_epochs_and_seeds_differ():
    orders = [
        [pairs_of(Schedule(MixedOrder([8] * 8, 2, seed), 8), 8 * epoch + step) for step in range(8)]
        for seed in (-1, 0, 1)
        for epoch in (0, 1)
    ]
    assert len({str(order) for order in orders}) == len(orders)


def test_windows_of_a_group_are_mixed_and_no_more():
    """A batch draws on the records of its groups only, and on all of them."""
    schedule = Schedule(MixedOrder([64] * 12, 4, seed=0), 64)
    records = [set(schedule.batch_rows(step).records.tolist()) for step in range(12)]
    for group in range(3):
        assert len(set.union(*records[4 * group : 4 * group + 4])) == 4
        assert all(len(seen) == 4 for seen in records[4 * group : 4 * group + 4])


def test_window_records_are_mixed_over_the_whole_set():
    """They lie in the order of the recordings; few of a batch are of one moment or recording."""
    devices, moments, recordings, batch = 3, 100, 10, 30
    total = devices * moments * recordings
    schedule = Schedule(MixedOrder([1] * total, 8, seed=4), batch)
    pairs = 0
    for step in range(total // batch):
        records = schedule.batch_rows(step).records
        assert len(np.unique(records // (devices * moments))) >= 5, "recordings of a batch"
        pairs += sum(int(n * (n - 1) // 2) for n in np.bincount(records // devices))
    # By chance: 100 batches of 435 pairs, of which 2 in 2999 are of one moment: 29, deviation 5.4.
    assert pairs < 29 + 5 * 5.4


def test_windows_of_a_batch_stand_by_record():
    schedule = Schedule(MixedOrder(SIZES["uneven"], 3, seed=2), 13)
    for step in range(20):
        pairs = pairs_of(schedule, step)
        assert pairs == sorted(pairs)


def test_positions_are_uniform():
    """A window is as likely at any place of the epoch as at any other (mean and deviation)."""
    for epoch in (0, 1):
        places = []
        for seed in range(400):
            schedule = Schedule(MixedOrder([4] * 5, 2, seed), 1)
            order = [pair for step in range(20) for pair in pairs_of(schedule, 20 * epoch + step)]
            places.append(order.index((2, 1)))
        # Uniform over 0..19: mean 9.5 and deviation 5.77, so the mean of 400 has deviation 0.29.
        assert np.mean(places) == pytest.approx(9.5, abs=4 * 0.29)
        assert np.std(places) == pytest.approx(5.77, abs=0.6)


def test_order_is_pinned():
    """Runs of other days and machines must see this order: it may never change."""
    schedule = Schedule(MixedOrder([3, 5, 1, 7], 2, seed=11), 6)
    assert [pairs_of(schedule, step) for step in (0, 1, 2, 7)] == [
        [(0, 0), (0, 1), (0, 2), (2, 0), (3, 2), (3, 3)],
        [(1, 1), (1, 3), (3, 0), (3, 1), (3, 4), (3, 5)],
        [(1, 0), (1, 2), (1, 4), (3, 1), (3, 4), (3, 6)],
        [(1, 0), (1, 2), (3, 1), (3, 3), (3, 4), (3, 6)],
    ]


def test_bad_input():
    with pytest.raises(ValueError, match="at least one window"):
        Schedule(MixedOrder([], 1, seed=0), 4)
    with pytest.raises(ValueError, match=r"train\.batch is 16, but data\.train holds 15 windows"):
        Schedule(MixedOrder([10, 5], 1, seed=0), 16)
