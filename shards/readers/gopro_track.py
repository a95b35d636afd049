"""The telemetry track of a GoPro file: all its IMU samples with times, in one pass.

telemetry = read_track(partial(source.open, "GX01.MP4"), source.locate("GX01.MP4"))
for samples in telemetry.sensors["ACCL"].read(): ...

Source: GoPro, "GPMF Introduction" (github.com/gopro/gpmf-parser, docs/README.md): the MP4 track
``gpmd`` has about one block a second (`shards.readers.gpmf`). Samples have no times of their own.
TSMP counts all samples up to the end of a block. A block may be empty, and the next one may then
hold the samples of both (`shards.readers.gopro_clock`).

Only the track is read, not the pictures. Samples are kept in temporary files (in ``TMPDIR``), so
memory is bounded for recordings of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
from av.stream import Discard

from primus_scale.storage.foreign import DamagedInputError, decoding
from shards.files.video import damage
from shards.readers.gopro_pace import VideoLength, check_pace
from shards.readers.gopro_sensor import TrackSensor
from shards.readers.gpmf import parse_telemetry_block

_AGAIN = "copy the file from the camera again"


class Telemetry(NamedTuple):
    """device: the name that the camera gives itself. sensors: by key, ``ACCL`` and ``GYRO``."""

    device: str
    sensors: dict[str, TrackSensor]
    notes: tuple[str, ...]


class _Packet(NamedTuple):
    """A block of the track, and its time in the video."""

    start_s: float
    end_s: float
    data: bytes


def read_track(opener: Callable[[], BinaryIO], where: str) -> Telemetry | None:
    """The IMU samples of the file; None where it has no such track, so is not a GoPro's.

    opener: opens the file, seekable, at each call. Raises ValueError where blocks are damaged or do
    not describe their samples, and where the video is not in real time. It names the file
    (``where``), the time and the next step.
    """
    device, sensors, notes = "", dict[str, TrackSensor](), dict[str, None]()
    clocks: dict[str, list[tuple[float, float]]] = {}
    video, blocks, first_s = VideoLength(), 0, 0.0
    for item in _packets(opener, where):
        if isinstance(item, VideoLength):
            video = item
            continue
        first_s = first_s if blocks else item.start_s
        blocks += 1
        block_name = f"the telemetry block at {item.start_s:.3f} s"
        with decoding(where, f"{block_name} cannot be read", advice=_AGAIN, in_memory=True):
            block = parse_telemetry_block(item.data)
        device = device or block.device
        for name, time_s in block.clocks.items():
            clocks.setdefault(name, []).append((item.start_s, time_s))
        for key, series in block.sensors.items():
            if series.note:
                notes[series.note] = None
            if key not in sensors:
                sensors[key] = TrackSensor(key, series.unit)
            with decoding(where, f"{block_name} does not continue {key}", advice=_AGAIN):
                sensors[key].add(series, item.start_s, item.end_s)
    if not blocks:
        return None
    present = {key: sensor for key, sensor in sensors.items() if sensor.samples}
    for sensor in present.values():
        notes |= dict.fromkeys(sensor.finish(blocks, first_s, video.duration_s))
        if sensor.stamps:
            clocks[f"STMP of {sensor.key}"] = sensor.stamps
    rates_hz = {key: (sensor.samples, sensor.rate_hz()) for key, sensor in present.items()}
    notes |= dict.fromkeys(check_pace(where, rates_hz, clocks, video))
    return Telemetry(device, present, tuple(notes))


def read_video_length(path: Path, where: str) -> VideoLength:
    """Length of the file's video; ValueError naming it (``where``) where it is damaged."""
    try:
        with av.open(str(path), "r", metadata_errors="replace") as container:
            return VideoLength.of(container)
    except Exception as error:
        raise ValueError(f"{where} cannot be read ({damage(error)}); {_AGAIN}") from None


def _packets(opener: Callable[[], BinaryIO], where: str) -> Iterator[VideoLength | _Packet]:
    """The length of the video, then the track's blocks; nothing if the track is not GoPro's."""
    with opener() as file:
        try:
            with av.open(file, "r", metadata_errors="replace") as container:
                yield from _demuxed(container, where)
        except DamagedInputError:
            raise
        except Exception as error:
            why = damage(error)
            raise ValueError(f"{where}: its telemetry cannot be read ({why}); {_AGAIN}") from None


def _demuxed(container: Any, where: str) -> Iterator[VideoLength | _Packet]:
    # FFmpeg's name for tracks of type "gpmd" and a few others.
    tracks = [stream for stream in container.streams.data if stream.name == "bin_data"]
    named = [t for t in tracks if "GoPro MET" in t.metadata.get("handler_name", "")]
    if not tracks:
        return
    track, is_gopro = (named or tracks)[0], bool(named)
    for other in container.streams:
        if other.index != track.index:
            other.discard = Discard.all
    if any(entry.pos + entry.size > container.size for entry in track.index_entries):
        raise DamagedInputError(
            f"{where}: its telemetry cannot be read (it is truncated); {_AGAIN}"
        )
    yield VideoLength.of(container)
    for packet in container.demux(track):
        if not packet.size:  # the end of the track
            continue
        data = bytes(packet)
        if not is_gopro and not data.startswith(b"DEVC"):
            return
        is_gopro = True
        assert packet.pts is not None and packet.duration is not None  # as in any MP4
        start, end = packet.pts, packet.pts + packet.duration
        yield _Packet(float(start * packet.time_base), float(end * packet.time_base), data)
