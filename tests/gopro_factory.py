"""Writes small GoPro files: a video and a telemetry track whose blocks hold what a test wants.

time_s = np.arange(4000) / 200
write_gopro(path, {"ACCL": time_s, "GYRO": time_s}, even_blocks(20))
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from tests.recording_factory import acceleration, rotation
from tests.video_factory import numbered_pictures

SIGNALS = {"ACCL": acceleration, "GYRO": rotation}
SCALES = {"ACCL": 400, "GYRO": 900}
UNITS = {"ACCL": "m/s²", "GYRO": "rad/s"}


class Block(NamedTuple):
    """A block of telemetry: where it lies in the video, and how many samples it holds, by key.

    A sensor that is not among them is absent from the block; one with 0 is there without samples
    (EMPT). lost: samples by key that went missing before it, counted by TSMP. clocks: entries of
    the device (``TICK``) and of a GPS stream (``GPSU``), ready made.
    """

    start_s: float
    samples: Mapping[str, int]
    lost: Mapping[str, int] = {}
    clocks: Sequence[bytes] = ()


def klv(key: str, kind: str, size: int, data: bytes) -> bytes:
    """An entry of samples of ``size`` bytes."""
    head = struct.pack(">4scBH", key.encode(), kind.encode(), size, len(data) // size)
    return head + data + bytes(-len(data) % 4)


def nest(key: str, *entries: bytes) -> bytes:
    return klv(key, "\0", 4, b"".join(entries))  # all of them are padded to 4 bytes


def text(key: str, value: str) -> bytes:
    data = value.encode("latin-1")
    return klv(key, "c", len(data), data)


def floats(key: str, *numbers: float) -> bytes:
    return klv(key, "f", 4, struct.pack(f">{len(numbers)}f", *numbers))


def even_blocks(
    counts: Sequence[int], *, block_s: float = 1.0, keys: Sequence[str] = ("ACCL", "GYRO")
) -> list[Block]:
    """Blocks one after the other with so many samples of all sensors."""
    return [Block(k * block_s, dict.fromkeys(keys, n)) for k, n in enumerate(counts)]


def write_gopro(
    path: Path,
    times_s: Mapping[str, np.ndarray],
    blocks: Sequence[Block],
    *,
    last_s: float = 1.0,
    video_s: float | None = None,
    rate_fps: float = 2.0,
    totals: bool = True,
    restarts: Sequence[int] = (),
    stamps: float | None = None,
    device: str = "HERO6 Black",
) -> None:
    """Write the file.

    times_s: when each sensor took its samples, in order, by key: those of ``SIGNALS`` at these
    times are stored. last_s: duration given to the last block. video_s: of the pictures (None: to
    the end of the last block). totals: whether there is TSMP. restarts: blocks before which it
    begins anew. stamps: what the camera's clock showed at 0 (None: no STMP).
    """
    taken, total = dict.fromkeys(times_s, 0), dict.fromkeys(times_s, 0)
    end_s = blocks[-1].start_s + last_s
    with av.open(str(path), "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=Fraction(rate_fps), options={"crf": "30"})
        pictures = list(numbered_pictures(1))
        video.height, video.width, _ = pictures[0].shape
        video.pix_fmt = "yuv420p"
        track = file.add_data_stream("bin_data")
        track.time_base = Fraction(1, 1000)
        track.metadata["handler_name"] = "\x0bGoPro MET"
        for number, block in enumerate(blocks):
            streams = []
            for key, count in block.samples.items():
                total[key] = 0 if number in restarts else total[key]
                total[key] += count + block.lost.get(key, 0)
                first = taken[key] + block.lost.get(key, 0)
                taken[key] = first + count
                there = times_s[key][first : first + count]
                streams.append(
                    _stream(
                        key,
                        there,
                        total[key] if totals else None,
                        None if stamps is None or not count else stamps + there[0],
                    )
                )
            packet = av.Packet(nest("DEVC", text("DVNM", device), *block.clocks, *streams))
            packet.stream, packet.time_base = track, track.time_base
            packet.pts = packet.dts = round(block.start_s * 1000)
            packet.duration = round(last_s * 1000)
            file.mux(packet)
        for number in range(round((end_s if video_s is None else video_s) * rate_fps)):
            frame = av.VideoFrame.from_ndarray(pictures[0], format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1) / Fraction(rate_fps)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))


def _stream(key: str, time_s: np.ndarray, total: int | None, stamp_s: float | None) -> bytes:
    values = np.rint(SIGNALS[key](np.asarray(time_s)) * SCALES[key]).astype(">i2")
    entries: list[Any] = [
        stamp_s is not None and klv("STMP", "J", 8, struct.pack(">Q", round((stamp_s or 0) * 1e6))),
        total is not None and klv("TSMP", "L", 4, struct.pack(">L", total or 0)),
        not len(values) and klv("EMPT", "L", 4, struct.pack(">L", 1)),
        text("ORIN", "ZXY"),
        text("SIUN", UNITS[key]),
        klv("SCAL", "s", 2, struct.pack(">h", SCALES[key])),
        klv(key, "s", 6, values.tobytes()),
    ]
    return nest("STRM", *(entry for entry in entries if entry))
