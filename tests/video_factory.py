"""Writes small real videos, whose pictures hold their own number, for tests.

write_video(path, numbered_pictures(60), rate_fps=30)
read_number(picture)  # of a decoded picture, however it was turned back and scaled
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

BITS = 8
HEIGHT, WIDTH = 48, 96
TICKS = 30000  # a second, in the files' time base


def numbered_picture(number: int) -> np.ndarray:
    """The number as black and white bars, highest bit left, over a red band: uint8 ``(h, w, 3)``.

    The band is at the bottom, so that the picture tells how it is turned and whether it is
    mirrored.
    """
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit, bar in enumerate(np.array_split(np.arange(WIDTH), BITS)):
        picture[: HEIGHT * 3 // 4, bar] = 255 * (number >> (BITS - 1 - bit) & 1)
    picture[HEIGHT * 3 // 4 :, :, 0] = 255
    return picture


def numbered_pictures(count: int) -> Iterator[np.ndarray]:
    """Pictures with the numbers from 0 on."""
    return (numbered_picture(number) for number in range(count))


def read_number(picture: np.ndarray) -> int:
    """The number in an upright picture of any size; AssertionError where it is not upright."""
    height, width, _ = picture.shape
    mean = picture[round(height * 0.8) :].mean(axis=(0, 1))
    assert mean[0] > 150 and mean[1:].max() < 100, f"no red band at the bottom: {mean}"
    row = picture[height // 4 : height // 2].mean(axis=(0, 2))
    bars = [row[round((bit + 0.5) * width / BITS)] for bit in range(BITS)]
    assert all(bar < 60 or bar > 195 for bar in bars), f"no bars of black and white: {bars}"
    return sum(int(bar > 128) << (BITS - 1 - bit) for bit, bar in enumerate(bars))


def write_video(
    path: str | Path | BinaryIO,
    pictures: Iterable[np.ndarray],
    *,
    rate_fps: float = 30.0,
    times_s: Sequence[float] | None = None,
    codec: str = "libx264",
    key_every: int = 12,
    b_frames: int = 0,
    rotation: int | None = None,
    hflip: bool = False,
    container: str = "mp4",
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write RGB pictures ``(h, w, 3)`` of one size, as a video.

    times_s: of the pictures, instead of ``rate_fps`` (variable frame rate). rotation, hflip:
    display matrix, as degrees anticlockwise to show pictures at, then mirrored.
    """
    options = {"g": str(key_every), "bf": str(b_frames)}
    if codec == "libx264":  # the same bytes on every machine
        options |= {"crf": "15", "threads": "1", "x264-params": "scenecut=0:keyint_min=1"}
    shown = list(pictures)
    target = path if hasattr(path, "write") else str(path)
    with av.open(target, "w", format=container, options=container_options or {}) as file:
        file.metadata.update(metadata or {})
        stream = file.add_stream(codec, rate=Fraction(rate_fps), options=options)
        stream.height, stream.width, _ = shown[0].shape
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        for number, picture in enumerate(shown):
            time_s = number / rate_fps if times_s is None else times_s[number]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, TICKS)
            frame.pts = round(time_s * TICKS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
