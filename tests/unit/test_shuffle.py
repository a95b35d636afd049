import numpy as np

from primus_scale.data.index import RecordEntry, ShardEntry
from primus_scale.data.shard_set import list_places
from shards.embed.shuffle import shuffled_places

FILES = [
    ShardEntry(
        f"part-{number}.tar", 10_000, "0" * 64, tuple(RecordEntry(n, 1, 1, 0) for n in range(500))
    )
    for number in range(4)
]


def test_every_record_once_in_an_order_drawn_from_the_seed() -> None:
    order = shuffled_places(FILES, seed=1)
    assert sorted(order) == sorted(list_places(FILES))
    assert order != list_places(FILES)
    assert order == shuffled_places(FILES, seed=1)
    assert order != shuffled_places(FILES, seed=2)


def test_neighbours_come_apart_and_every_segment_holds_all_files_alike() -> None:
    places = {place: number for number, place in enumerate(list_places(FILES))}
    order = [places[place] for place in shuffled_places(FILES, seed=3)]
    steps = np.abs(np.diff(order))
    # Of 1999 steps of a random order of 2000, 2 are expected to be of one place (Poisson).
    assert (steps == 1).sum() < 10
    for start in range(0, 2000, 200):
        counts = np.bincount(np.array(order[start : start + 200]) // 500, minlength=4)
        # 50 expected, deviation 5.8.
        assert counts.min() > 50 - 5 * 5.8
