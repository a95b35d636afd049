"""A share of the training windows: which, that shares are nested, and that a run reads no other."""

from pathlib import Path

import numpy as np
import pytest

from primus_scale.config import DataConfig
from primus_scale.data.fraction import open_training, rows_of_parts, rows_of_sessions
from primus_scale.data.index import SessionPart
from primus_scale.data.reader import batches, sample_windows
from primus_scale.data.shard_set import ShardSet
from tests.integration.tiny import write_shards

FRACTIONS = (0.01, 0.03, 0.1, 0.3, 0.7, 1.0)
# Two records; session 7 has a part in both.
PARTS = (
    (SessionPart(7, 100, 1.0), SessionPart(8, 30, 1.0)),
    (SessionPart(9, 20, 1.0), SessionPart(7, 50, 1.0), *(SessionPart(n, 4, 1.0) for n in range(5))),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """96 windows of ten sessions, in records of 16."""
    return write_shards(tmp_path_factory.mktemp("shards") / "told", windows=96, sessions=True)


def chosen(rows: list[np.ndarray]) -> set[tuple[int, int]]:
    return {(record, row) for record, each in enumerate(rows) for row in each.tolist()}


@pytest.mark.parametrize("choose", [rows_of_sessions, rows_of_parts])
def test_shares_are_nested_and_of_the_size_asked_for(choose) -> None:
    total, before = 220, set()
    for fraction in FRACTIONS:
        kept = chosen(choose(PARTS, fraction))
        assert before <= kept
        assert kept == chosen(choose(PARTS, fraction)), "it is drawn anew"
        # Sessions are whole, the last one too; parts are rounded up or down, each by less than 1.
        over = len(kept) - fraction * total
        assert (0 <= over < 150) if choose is rows_of_sessions else abs(over) < 9
        before = kept
    assert len(before) == total


def test_sessions_are_kept_whole_over_all_records() -> None:
    ends = [(0, 0, 100), (0, 100, 130), (1, 0, 20), (1, 20, 70)]
    for fraction in FRACTIONS[:-1]:
        kept = chosen(rows_of_sessions(PARTS, fraction))
        for record, first, stop in ends:
            assert len(kept & {(record, row) for row in range(first, stop)}) in (0, stop - first)
        assert ((0, 0) in kept) == ((1, 20) in kept), "both parts of session 7, or none"


def test_windows_are_the_first_of_each_part() -> None:
    rows = rows_of_parts(PARTS, 0.5)
    assert rows[0].tolist() == [*range(50), *range(100, 115)]
    assert np.array_equal(rows[1][:10], np.arange(10))


@pytest.mark.parametrize("by", ["session", "window"])
def test_a_run_reads_the_kept_windows_only_and_all_of_them(shards: str, by: str) -> None:
    config = DataConfig(train=(shards,), fraction=0.5, fraction_by=by)
    data, whole = open_training(config), ShardSet.open(shards)
    assert 48 <= data.windows < 60
    uids = {uid for n in range(len(data)) for uid in data.read_block(n).uid.tolist()}
    assert len(uids) == data.windows
    everything = {uid for n in range(len(whole)) for uid in whole.read_block(n).uid.tolist()}
    assert uids < everything
    assert sum(part.windows for record in data.session_parts for part in record) == data.windows
    block = data.read_block(0)
    assert [meta.uid for meta in block.metas] == block.uid.tolist()

    for session_windows in (None, 4):
        epoch = config.model_copy(update={"session_windows": session_windows})
        steps = data.windows // 8
        with batches(epoch, data, batch=8, seed=3, stop_step=steps) as loader:
            seen = [uid for batch in loader for uid in batch.uid.tolist()]
        assert len(set(seen)) == len(seen) == 8 * steps
        assert set(seen) <= uids
    sampled = sum(len(session) for _, session in sample_windows(data, 1000))
    assert sampled == data.windows, "the calibration sees no other windows"


def test_all_windows_are_those_of_the_folder(shards: str) -> None:
    assert open_training(DataConfig(train=(shards,))) == ShardSet.open(shards)


def test_what_cannot_be_chosen_is_told(tmp_path: Path, shards: str) -> None:
    shuffled = write_shards(tmp_path / "shuffled", windows=32)
    with pytest.raises(ValueError, match=r"takes whole sessions, .*data\.fraction_by=window"):
        open_training(DataConfig(train=(shuffled,), fraction=0.5))
    by_window = DataConfig(train=(shuffled,), fraction=0.5, fraction_by="window")
    assert open_training(by_window).windows == pytest.approx(16, abs=2)
    tiny = by_window.model_copy(update={"fraction": 1e-9})
    with pytest.raises(ValueError, match=r"leaves none of the 32 windows .*raise it"):
        open_training(tiny)
