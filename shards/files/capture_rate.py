"""Rate at which a camera took pictures, where the file states it: slow motion, time lapse.

rate = capture_rate(file, container.metadata)  # an MP4 or MOV, PyAV's metadata of it
rate.taken_fps, rate.shown_fps

Android's MediaMuxer writes it under a key of its own. Sony's cameras write NonRealTimeMeta, a piece
of XML in a ``meta`` box next to ``moov`` (handler ``nrtm``): its element ``VideoFrame`` has
``captureFps`` and ``formatFps``, such as "119.88p" and "29.97p" for video slowed down by four.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

_ANDROID = "com.android.capture.fps"
_SONY = (b"NonRealTimeMeta", rb"""\b%s\s*=\s*["'](\d+(?:\.\d+)?)([pi]?)["']""")
_PICTURES = {b"": 1.0, b"p": 1.0, b"i": 0.5}  # fields of interlaced video are half a picture
_MOST_BOXES = 1000  # of a video; fragmented ones have many
_MOST_BYTES = 2**20  # of a box of XML


class CaptureRate(NamedTuple):
    """Pictures a second, as taken. shown_fps: of the video, where the camera states it."""

    taken_fps: float
    shown_fps: float | None = None


def capture_rate(file: BinaryIO, metadata: Mapping[str, str]) -> CaptureRate | None:
    """The rates that the file states; None where it states none."""
    taken_fps = _positive(metadata.get(_ANDROID))
    if taken_fps is not None:
        return CaptureRate(taken_fps)
    text = _sony_text(file)
    taken_fps, shown_fps = (_sony_rate(text, name) for name in (b"captureFps", b"formatFps"))
    return None if taken_fps is None else CaptureRate(taken_fps, shown_fps)


def _sony_rate(text: bytes, name: bytes) -> float | None:
    found = re.search(_SONY[1] % name, text)
    if found is None or not (number := _positive(found[1].decode())):
        return None
    return number * _PICTURES[found[2]]


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _sony_text(file: BinaryIO) -> bytes:
    """The XML of the ``meta`` box next to ``moov``; empty where there is none."""
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8 or (place == 0 and head[4:8] != b"ftyp"):
            return b""
        size, kind = struct.unpack(">I4s", head[:8])
        if size == 1 and len(head) == 16:  # the size follows the kind
            size = struct.unpack(">Q", head[8:])[0]
        if kind == b"meta":
            file.seek(place)
            text = file.read(min(size or _MOST_BYTES, _MOST_BYTES))
            if _SONY[0] in text:
                return text
        if size < 8:  # up to the end, or damaged
            return b""
        place += size
    return b""
