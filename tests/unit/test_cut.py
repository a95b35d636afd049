"""Where windows are cut: overlap, texts, labels, ends, pauses."""

import itertools
from typing import Any

import numpy as np
import pytest

from primus_scale.sample import CHANNELS, UNITS
from shards.recording import LabelSpan, Narration
from shards.settings import IngestSettings
from shards.signal.condition import Gap
from shards.signal.cut import PlannedWindow, plan_windows

WINDOW = 250  # samples: 5 s at 50 Hz


def settings(**changes: Any) -> IngestSettings:
    values: dict[str, Any] = {"rate_hz": 50.0, "window_s": 5.0, "hop_s": 5.0}
    return IngestSettings(channels=CHANNELS, units=UNITS, **(values | changes))


def plan(
    span: tuple[float, float] = (0.0, 60.0),
    narrations: list[Narration] | None = None,
    labels: list[LabelSpan] | None = None,
    gaps: list[Gap] | None = None,
    **changes: Any,
) -> list[PlannedWindow]:
    return plan_windows(span, narrations or [], labels or [], settings(**changes), gaps=gaps or [])


def starts(windows: list[PlannedWindow]) -> list[float]:
    return [window.start / 50 for window in windows]


def point(time_s: float, text: str = "A person picks a cup") -> Narration:
    return Narration(time_s, time_s, text)


def test_nothing_known_is_tiled_at_multiples_of_the_hop() -> None:
    assert starts(plan((1.2, 23.0))) == [5, 10, 15]
    assert starts(plan((0.0, 9.98))) == [0, 5]
    assert starts(plan((0.0, 9.96))) == [0]
    assert starts(plan((0.0, 12.0), hop_s=2.5)) == [0, 2.5, 5]
    assert plan((0.0, 3.0)) == []
    assert plan((5.0, 1.0)) == []


def test_fixed_windows_fit_their_own_samples() -> None:
    """128 samples at 50 Hz end at 2.54 s, and are one window of 2.56 s."""
    windows = plan((2.56, 5.10), labels=[LabelSpan(2.56, 5.10, "walking")], window_s=2.56)
    assert windows == [PlannedWindow(128, (), "walking")]
    assert len(plan((2.56, 5.10), window_s=2.56, hop_s=2.56)) == 1


def test_labels_are_tiled_from_their_start() -> None:
    labels = [LabelSpan(20.01, 33.0, "running"), LabelSpan(3.3, 14.0, "walking")]
    windows = plan(labels=labels)
    assert starts(windows) == [3.3, 8.3, 20.02, 25.02]
    assert [window.label for window in windows] == ["walking", "walking", "running", "running"]
    assert starts(plan(labels=labels, hop_s=2.5)) == [3.3, 5.8, 8.3, 20.02, 22.52, 25.02, 27.52]


def test_labels_are_cut_to_the_samples() -> None:
    labels = [LabelSpan(0.0, 100.0, "walking")]
    assert starts(plan((7.0, 18.0), labels=labels)) == [7, 12]
    assert plan((7.0, 18.0), labels=[LabelSpan(18.5, 40.0, "walking")]) == []


def test_overlapping_labels_share_no_window() -> None:
    labels = [LabelSpan(0.0, 20.0, "walking"), LabelSpan(10.0, 30.0, "talking")]
    windows = plan(labels=labels, max_overlap=0.2)
    assert starts(windows) == [0, 5, 10, 15, 20, 25]
    assert len({window.start for window in windows}) == len(windows)


def test_windows_are_centred_on_narrations() -> None:
    assert 27.5 in starts(plan(narrations=[point(30.0)]))
    windows = plan(narrations=[Narration(20.0, 24.0, "A person walks")])
    assert 19.5 in starts(windows)
    assert next(w for w in windows if w.start == 975).texts == ("A person walks",)


def test_narrations_at_the_ends_move_their_window_inwards() -> None:
    windows = plan((2.0, 40.0), narrations=[point(3.0, "a"), point(39.5, "b"), point(41.0, "c")])
    narrated = [window for window in windows if window.texts]
    assert starts(narrated) == [2.0, pytest.approx(35.02)]
    assert [window.texts for window in narrated] == [("a",), ("b",)]


def test_all_narrations_of_a_window_stay_together() -> None:
    narrations = [point(30.0, "a"), point(31.0, "b"), point(31.5, "a"), point(32.0, "c")]
    windows = plan(narrations=narrations)
    assert next(w for w in windows if w.start == 1375).texts == ("a", "b", "c")
    # The others would overlap it by more than half.
    assert [w.texts for w in windows if w.texts] == [("a", "b", "c")]


def test_texts_are_given_by_half_of_the_shorter() -> None:
    windows = plan(
        (0.0, 10.0),
        narrations=[
            Narration(0.0, 9.98, "the whole"),
            Narration(1.0, 2.0, "inside"),
            Narration(4.4, 5.6, "mostly before"),
            Narration(4.6, 5.4, "half and half"),
            point(5.0, "at the border"),
        ],
        max_overlap=0.0,
        hop_s=5.0,
    )
    by_start = {window.start: window.texts for window in windows}
    assert by_start[0] == ("the whole", "inside", "mostly before", "half and half")
    assert 125 not in by_start


def test_free_time_between_narrations_is_tiled() -> None:
    windows = plan((0.0, 60.0), narrations=[point(12.5), point(40.0)])
    assert starts(windows) == [0, 5, 10, 15, 20, 25, 30, 37.5, 42.5, 47.5, 52.5]
    assert [bool(window.texts) for window in windows].count(True) == 2


@pytest.mark.parametrize("max_overlap", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("hop_s", [1.0, 2.5, 4.0, 5.0, 7.0])
def test_overlap_is_bounded(max_overlap: float, hop_s: float) -> None:
    rng = np.random.default_rng(4)
    narrations = [
        Narration(start, start + length, f"text {number}")
        for number, (start, length) in enumerate(
            zip(rng.uniform(-5, 305, 60), rng.choice([0.0, 0.5, 3.0, 20.0], 60), strict=True)
        )
    ]
    windows = plan((0.37, 299.1), narrations=narrations, max_overlap=max_overlap, hop_s=hop_s)
    firsts = [window.start for window in windows]
    assert firsts == sorted(firsts)
    assert firsts[0] / 50 >= 0.37
    assert (firsts[-1] + WINDOW - 1) / 50 <= 299.1
    least = WINDOW - round(max_overlap * WINDOW)
    steps = {b - a for a, b in itertools.pairwise(firsts)}
    assert min(steps - {round(50 * hop_s)}) >= least  # tiles among themselves follow the hop
    assert sum(bool(window.texts) for window in windows) >= 20


def test_narrations_decide_the_places_and_labels_name_them() -> None:
    windows = plan(
        (0.0, 30.0), [point(8.0), point(15.5)], [LabelSpan(4.0, 16.0, "cooking")], hop_s=5.0
    )
    assert starts(windows) == [0.0, 5.5, 13.0, 18.0, 23.0]
    assert [window.label for window in windows] == [None, "cooking", None, None, None]


def test_pauses_are_not_searched_for_windows() -> None:
    jump = Gap(20.0, 1.7e9, invalid=False)
    windows = plan((0.0, 1.7e9 + 12), gaps=[Gap(3.0, 4.0, invalid=True), jump])
    assert starts(windows) == [0, 5, 10, 15, 1.7e9, 1.7e9 + 5]
    windows = plan((0.0, 1.7e9 + 12), [point(19.9, "a"), point(1000.0, "b")], gaps=[jump])
    assert [w.texts for w in windows if w.texts] == [("a",)]
    assert max(starts(windows)[:-2]) <= 15.02
    labels = [LabelSpan(10.0, 1.7e9 + 12, "walking")]
    assert starts(plan((0.0, 1.7e9 + 12), labels=labels, gaps=[jump])) == [
        10,
        15,
        1.7e9,
        1.7e9 + 5,
    ]


def test_short_gaps_are_planned_for_so_that_refusals_are_counted() -> None:
    assert len(plan((0.0, 60.0), gaps=[Gap(10.0, 40.0, invalid=False)])) == 12


def test_absurd_span_is_an_error() -> None:
    with pytest.raises(ValueError, match="check the clock of the recording"):
        plan((0.0, 1.7e9))
