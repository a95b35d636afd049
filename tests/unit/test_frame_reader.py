import io
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shards.ingest.frame_reader import FrameReader
from shards.settings import IngestSettings
from tests.recording_factory import make_settings


class Shades:
    """A video whose frame n is all of shade n; notes which frames are asked for."""

    def __init__(self, times_s: np.ndarray) -> None:
        self._times_s = times_s
        self.asked: list[int] = []

    def times_s(self) -> np.ndarray:
        return self._times_s

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        for number in numbers:
            self.asked.append(number)
            assert short_side is not None
            yield np.full((short_side, short_side + 8, 3), number, np.uint8)


SETTINGS = make_settings(window_s=2.0, frames=4, short_side=16)


def video(times_s: np.ndarray, settings: IngestSettings = SETTINGS) -> tuple[FrameReader, Shades]:
    frames = Shades(times_s)
    return FrameReader(frames, settings), frames


def shade(jpeg: bytes) -> int:
    picture = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert picture.shape == (16, 24, 3)
    return round(float(picture.mean()))


def test_frames_nearest_to_the_middles_of_equal_parts_are_chosen() -> None:
    chosen, _ = video(np.arange(100) / 10)
    # The middles of the four parts of 3 s to 5 s lie between two frames, the earlier is taken.
    assert chosen.times_s(chosen.choose(3.0)) == pytest.approx((3.2, 3.7, 4.2, 4.7), abs=0.051)
    assert len(chosen.choose(3.0)) == 4


def test_a_frame_that_is_nearest_to_two_parts_is_there_once() -> None:
    slow, _ = video(np.arange(10) * 1.0)
    assert slow.choose(3.0) == (3, 4, 5)


@pytest.mark.parametrize("start_s", [-1.0, 8.6, 30.0])
def test_a_window_beyond_the_video_has_no_frames(start_s: float) -> None:
    assert video(np.arange(100) / 10)[0].choose(start_s) == ()


def test_a_window_over_a_hole_in_the_video_has_no_frames() -> None:
    times_s = np.concatenate([np.arange(50), np.arange(70, 120)]) / 10
    cut, _ = video(times_s)
    assert cut.choose(2.0)
    assert cut.choose(4.5) == ()
    assert cut.choose(7.0)


def test_an_empty_video_and_a_single_frame() -> None:
    assert video(np.empty(0))[0].choose(0.0) == ()
    assert video(np.array([1.0]))[0].choose(0.0) == ()
    still, _ = video(np.array([1.0]), replace(SETTINGS, frames=1))
    assert still.choose(0.0) == (0,)


def test_overlapping_windows_decode_each_frame_once_and_in_order() -> None:
    cut, frames = video(np.arange(200) / 10)
    wanted = [cut.choose(start_s) for start_s in (0.0, 1.0, 2.0, 2.5, 30.0, 10.0)]
    assert wanted[4] == ()
    shades = [[shade(jpeg) for jpeg in pictures] for pictures in cut.encode(wanted)]
    assert shades == [pytest.approx(numbers, abs=1) for numbers in wanted]
    assert frames.asked == sorted({number for numbers in wanted for number in numbers})


def test_a_picture_is_not_held_longer_than_it_is_needed() -> None:
    cut, frames = video(np.arange(200) / 10)
    wanted = [cut.choose(start_s) for start_s in (0.0, 10.0)]
    encoded = cut.encode(wanted)
    next(encoded)
    assert frames.asked == list(wanted[0]), "nothing is decoded before it is needed"
