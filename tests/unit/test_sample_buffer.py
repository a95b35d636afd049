"""Samples on disk: order, duplicates, clocks set back, and the median in one pass."""

import numpy as np
import pytest

from shards.signal import sample_buffer as buffer_module
from shards.signal.sample_buffer import Column, Median, SampleBuffer, row_type
from tests.full_disk import files_limited_to


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many runs and boundaries with few rows."""
    monkeypatch.setattr(buffer_module, "RUN_ROWS", 64)
    monkeypatch.setattr(buffer_module, "PIVOT_ROWS", 8)


def buffered(time_s: np.ndarray, chunk: int = 50) -> tuple[np.ndarray, SampleBuffer]:
    """Rows in order; each row's value is its number in the file."""
    buffer = SampleBuffer(1)
    rows = np.zeros(len(time_s), row_type(1))
    rows["time_s"] = time_s
    rows["values"][:, 0] = np.arange(len(time_s))
    for start in range(0, len(rows), chunk):
        buffer.add(rows[start : start + chunk].copy())
    column = buffer.finish()
    return column.read(0, len(column)), buffer


def test_ordered_rows_pass_through() -> None:
    time_s = np.arange(1000) / 100
    rows, buffer = buffered(time_s)
    assert rows["time_s"].tolist() == time_s.tolist()
    assert (buffer.out_of_order, buffer.duplicates) == (0, 0)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_shuffled_rows_come_in_order(count: int) -> None:
    order = np.random.default_rng(count).permutation(count)
    rows, buffer = buffered(order / 100)
    assert rows["time_s"].tolist() == (np.arange(count) / 100).tolist()
    assert rows["values"][:, 0].tolist() == np.argsort(order).tolist()
    assert buffer.out_of_order == int((np.diff(order) < 0).sum())
    assert buffer.duplicates == 0


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_of_one_time_stay_in_file_order(shuffled: bool) -> None:
    time_s = np.repeat(np.arange(300) / 100, 3)
    if shuffled:
        time_s = np.random.default_rng(0).permutation(time_s)
    rows, buffer = buffered(time_s, chunk=37)
    assert rows["time_s"].tolist() == np.sort(time_s).tolist()
    assert rows["values"][:, 0].tolist() == np.argsort(time_s, kind="stable").tolist()
    assert not rows["repeat"].any()
    assert buffer.duplicates == 0


def test_all_times_equal() -> None:
    rows, buffer = buffered(np.full(500, 7.0))
    assert rows["values"][:, 0].tolist() == list(range(500))
    assert not buffer.stands_still


def test_clock_that_stands_still_is_told_and_takes_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buffer_module, "MOST_OF_ONE_TIME", 10)
    rows, buffer = buffered(np.full(500, 7.0))
    assert buffer.stands_still
    assert len(rows) == 100, "of ten runs"


def test_rows_sent_again_later_are_duplicates() -> None:
    values = np.arange(100, dtype=np.float32)
    buffer = SampleBuffer(1)
    for _ in range(2):
        rows = np.zeros(100, row_type(1))
        rows["time_s"], rows["values"][:, 0] = values / 100, values
        buffer.add(rows)
    column = buffer.finish()
    assert len(column) == 100
    assert (buffer.duplicates, buffer.overlapping) == (100, 0)
    assert not column.read(0, 100)["clock_set"].any(), "no clock was set"


def test_rows_written_twice_are_marked() -> None:
    rows = np.zeros(200, row_type(1))
    rows["time_s"] = np.repeat(np.arange(100) / 100, 2)
    rows["values"][:, 0] = np.repeat(np.arange(100), 2)
    buffer = SampleBuffer(1)
    buffer.add(rows)
    column = buffer.finish()
    assert column.read(0, 200)["repeat"].tolist() == [False, True] * 100


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5, 0.9])
def test_time_recorded_again_is_dropped(phase: float) -> None:
    """A clock that restarts lays its second half over the first, at another phase."""
    first = np.arange(600) / 100
    again = (np.arange(200, 800) + phase) / 100
    rows, buffer = buffered(np.concatenate([first, again]))
    assert buffer.out_of_order == 1
    # The second part counts only where the first had ended.
    values = rows["values"][:, 0]
    assert values[:600].tolist() == list(range(600))
    assert values[600:].tolist() == list(range(999 if phase == 0.9 else 1000, 1200))
    assert (buffer.duplicates, buffer.overlapping) == (0, 1200 - len(rows))
    assert np.flatnonzero(rows["clock_set"]).tolist() == [600], (
        "no window may lie across the splice"
    )


def test_late_rows_are_kept() -> None:
    time_s = np.arange(600) / 100
    order = np.concatenate([np.delete(np.arange(600), np.s_[100:104]), np.arange(100, 104)])
    rows, buffer = buffered(time_s[order])
    assert rows["time_s"].tolist() == time_s.tolist()
    assert (buffer.out_of_order, buffer.duplicates) == (1, 0)


def test_blocks_out_of_order_are_kept() -> None:
    blocks = np.split(np.arange(900) / 100, 9)
    rows, buffer = buffered(np.concatenate([blocks[n] for n in (0, 3, 1, 2, 8, 4, 7, 5, 6)]))
    assert rows["time_s"].tolist() == (np.arange(900) / 100).tolist()
    assert buffer.duplicates == 0


def test_column_reads_what_there_is() -> None:
    column = Column(np.dtype(("f4", (3,))))
    assert column.view().shape == (0, 3)
    column.append(np.arange(12, dtype=np.float32).reshape(4, 3))
    column.append(np.ones((2, 3), np.float32))
    assert len(column) == 6
    assert column.read(-5, 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert column.read(4, 99).shape == (2, 3)
    assert [len(block) for block in column.blocks(4)] == [4, 2]
    view = column.view()
    assert view.shape == (6, 3)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0


def test_no_space_left_names_the_folder() -> None:
    column = Column(np.dtype("f8"))
    with files_limited_to(1000), pytest.raises(OSError, match=r"temporary folder .* set TMPDIR"):
        column.append(np.zeros(10_000))


def test_median_matches_numpy() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.lognormal(0, 3, 10_001)
    median = Median()
    for part in np.array_split(numbers, 13):
        median.add(part)
    assert median.value() == pytest.approx(float(np.median(numbers)), rel=1e-3)
    exact = Median()
    exact.add(np.full(1000, 0.005))
    assert exact.value() == pytest.approx(0.005, rel=1e-12)
    assert Median().value() == 0.0
    zeros = Median()
    zeros.add(np.zeros(5))
    assert zeros.value() == 0.0
