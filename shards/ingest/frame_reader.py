"""Pictures of windows: which frames belong to a moment, and their JPEG bytes in one pass.

reader = FrameReader(recording.frames, settings)
wanted = [reader.choose(start_s) for start_s in moments]  # () where there are none
for pictures in reader.encode(wanted):
    ...
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from shards.recording import FrameSource
from shards.settings import IngestSettings

# Distance of a frame from its moment, at most, in usual spacings of frames.
MOST_SPACINGS = 1.5


class FrameReader:
    """The frames of a recording as windows use them."""

    def __init__(self, frames: FrameSource, settings: IngestSettings) -> None:
        self._frames = frames
        self._settings = settings
        self._times_s = frames.times_s()
        spacing_s = np.diff(self._times_s)
        self._most_distance_s = (
            MOST_SPACINGS * float(np.median(spacing_s)) if len(spacing_s) else 0.0
        )

    def choose(self, start_s: float) -> tuple[int, ...]:
        """Numbers of the frames nearest to the middles of ``settings.frames`` equal parts.

        Each once, ascending; none where a part has no frame.
        """
        if not len(self._times_s):
            return ()
        part_s = self._settings.window_s / self._settings.frames
        wanted_s = start_s + (np.arange(self._settings.frames) + 0.5) * part_s
        after = np.clip(np.searchsorted(self._times_s, wanted_s), 1, len(self._times_s) - 1)
        if len(self._times_s) == 1:
            after = np.zeros(len(wanted_s), np.int64)
        before = np.maximum(after - 1, 0)
        earlier = wanted_s - self._times_s[before] <= self._times_s[after] - wanted_s
        numbers = np.where(earlier, before, after)
        if (
            np.abs(self._times_s[numbers] - wanted_s) > max(self._most_distance_s, part_s / 2)
        ).any():
            return ()
        return tuple(np.unique(numbers).tolist())

    def times_s(self, numbers: Sequence[int]) -> tuple[float, ...]:
        """When these frames were taken, on the recording's clock."""
        return tuple(self._times_s[list(numbers)].tolist())

    def encode(self, wanted: Sequence[Sequence[int]]) -> Iterator[tuple[bytes, ...]]:
        """The frames of each moment as JPEG; moments come in order of time.

        The video is decoded once; a picture is kept until no later moment needs it.
        """
        last_use = {number: place for place, numbers in enumerate(wanted) for number in numbers}
        order = sorted(last_use)
        pictures = zip(
            order,
            self._frames.pictures(order, short_side=self._settings.short_side),
            strict=True,
        )
        jpegs: dict[int, bytes] = {}
        for place, numbers in enumerate(wanted):
            while not jpegs.keys() >= {*numbers}:
                number, picture = next(pictures)
                jpegs[number] = self._jpeg(picture)
            yield tuple(jpegs[number] for number in numbers)
            jpegs = {number: jpeg for number, jpeg in jpegs.items() if last_use[number] > place}

    def _jpeg(self, picture: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=self._settings.jpeg_quality)
        return buffer.getvalue()
