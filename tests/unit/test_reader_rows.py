import numpy as np
import pytest

from shards.files.source import Source
from shards.readers.rows import CHUNK_ROWS, checked_listing, label_spans, regular_samples
from shards.recording import LabelSpan, RecordingRef
from shards.signal.cut import plan_windows
from tests.recording_factory import make_settings

NAMES = {0: None, 1: "walking", 2: "sitting"}


def test_spans_end_at_their_own_last_row_and_leave_null_out() -> None:
    time_s = np.arange(8) / 10
    codes = np.array([0, 1, 1, 1, 2, 2, 0, 0])
    assert label_spans(time_s, codes, NAMES, "f") == (
        LabelSpan(0.1, 0.3, "walking"),
        LabelSpan(0.4, 0.5, "sitting"),
    )


def test_rows_are_taken_in_order_of_time() -> None:
    time_s = np.array([0.3, 0.0, np.nan, 0.1, 0.2])
    codes = np.array([2, 1, 2, 1, 2])
    assert label_spans(time_s, codes, NAMES, "f") == (
        LabelSpan(0.0, 0.1, "walking"),
        LabelSpan(0.2, 0.3, "sitting"),
    )


def test_a_clock_that_jumps_makes_no_long_span() -> None:
    time_s = np.array([0.0, 0.5, 1.0, 1e9, 1e9 + 0.5, 9e18])
    spans = label_spans(time_s, np.ones(6, dtype=int), NAMES, "f")
    assert spans == (LabelSpan(0.0, 1.0, "walking"), LabelSpan(1e9, 1e9 + 0.5, "walking"))


def test_codes_may_be_text_and_unknown_ones_are_named() -> None:
    codes = np.array(["walk", "walk", "fly"], dtype=object)
    time_s = np.arange(3.0) / 2
    known = {"walk": "walking", "null": None}
    with pytest.raises(ValueError, match=r"a/b\.csv: row 3 .* code 'fly'; known are walk, null"):
        label_spans(time_s, codes, known, "a/b.csv")
    codes[2] = "null"
    assert label_spans(time_s, codes, known, "f") == (LabelSpan(0.0, 0.5, "walking"),)


@pytest.mark.parametrize(("rows", "starts"), [(99, []), (100, [0])])
def test_no_window_of_an_activity_holds_a_sample_of_the_next(rows: int, starts: list[int]) -> None:
    """A window of 2 s at 50 Hz has 100 samples."""
    codes = np.repeat([1, 2], [rows, 30])
    time_s = np.arange(len(codes)) / 50
    spans = label_spans(time_s, codes, NAMES, "f")
    planned = plan_windows((0.0, float(time_s[-1])), (), spans, make_settings())
    assert [(window.start, window.label) for window in planned] == [(s, "walking") for s in starts]


def test_no_rows_have_no_spans() -> None:
    assert label_spans(np.empty(0), np.empty(0), NAMES, "f") == ()


def test_regular_rows_come_in_chunks_with_times_from_zero() -> None:
    values = np.arange(2 * CHUNK_ROWS + 3, dtype=np.int16)[:, None]
    chunks = list(regular_samples(values, rate_hz=200.0))
    assert [len(chunk.time_s) for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 3]
    time_s = np.concatenate([chunk.time_s for chunk in chunks])
    np.testing.assert_array_equal(time_s, np.arange(len(values)) / 200.0)
    assert all(chunk.values.dtype == np.float64 for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([chunk.values for chunk in chunks]), values)


def test_listings_are_sorted_and_names_unique() -> None:
    source = Source("memory://data")
    refs = [RecordingRef("b", ("x/b",)), RecordingRef("a", ("x/a",))]
    assert [ref.name for ref in checked_listing(source, refs, "files")] == ["a", "b"]
    with pytest.raises(ValueError, match=r"x/a and .*y/a are both recording a; point --src"):
        checked_listing(source, [*refs, RecordingRef("a", ("y/a",))], "files")
    with pytest.raises(FileNotFoundError, match=r"no a\.csv below memory://data"):
        checked_listing(source, [], "a.csv")
