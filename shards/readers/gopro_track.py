"""The telemetry track of a GoPro file: all its IMU samples with times, in one pass.

telemetry = read_track(partial(source.open, "GX01.MP4"), source.locate("GX01.MP4"))
for samples in telemetry.sensors["ACCL"].read(): ...

Source: GoPro, "GPMF Introduction" (github.com/gopro/gpmf-parser, docs/README.md): the MP4 track
``gpmd`` has about a block a second (`shards.readers.gpmf`). Samples have no times of their own: the
track's times are the clock, and TSMP counts all samples up to the end of a block.

Only the track is read, not the pictures. Samples wait in temporary files (in ``TMPDIR``), so memory
is bounded however long the recording is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.stream import Discard

from shards.readers.gpmf import Series, parse_block
from shards.readers.rows import CHUNK_ROWS
from shards.recording import Samples
from shards.signal.spool import Column

_AGAIN = "copy the file from the camera again"
_ROW = np.dtype([("time_s", "f8"), ("values", "f8", (3,))])


class TrackSensor:
    """A sensor's samples; ``unit`` is theirs."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.blocks = 0  # that hold samples of it
        self._total: int | None = None
        self._last: tuple[float, int] | None = None  # the last block's start and first row
        self._first_s = 0.0
        self._column = Column(_ROW)

    def add(self, series: Series, start_s: float, end_s: float) -> None:
        """Append a block's samples; ValueError where some were lost before them."""
        count, total, before = len(series.values), series.total, self._total
        if series.unit != self.unit:
            raise ValueError(f"its unit {series.unit} was {self.unit} before")
        if not count:
            return
        # In a file joined from several it begins anew at 0.
        if total is not None and before is not None and total - count not in (before, 0):
            raise ValueError(
                f"its samples up to here are {total} (TSMP), with {count} in this block, but "
                f"{before} up to the one before"
            )
        if self._last is None:
            self._first_s = start_s
        self._last, self._total = (start_s, len(self._column)), total
        self.blocks += 1
        rows = np.empty(count, _ROW)
        # A block without duration tells no times.
        step_s = (end_s - start_s) / count if end_s > start_s else np.nan
        rows["time_s"] = start_s + step_s * np.arange(count)
        rows["values"] = series.values
        self._column.append(rows)

    def read(self) -> Iterator[Samples]:
        """The samples in chunks, at presentation times in s."""
        for rows in self._column.blocks(CHUNK_ROWS):
            yield Samples(rows["time_s"], rows["values"])

    def rate_hz(self) -> float:
        """Samples a second by the times of blocks, 0 where fewer than two blocks tell."""
        start_s, row = self._last or (0.0, 0)
        return row / (start_s - self._first_s) if start_s > self._first_s else 0.0


class Telemetry(NamedTuple):
    """device: the name that the camera gives itself. sensors: by key, ``ACCL`` and ``GYRO``."""

    device: str
    sensors: dict[str, TrackSensor]
    notes: tuple[str, ...]


def read_track(opener: Callable[[], BinaryIO], where: str) -> Telemetry | None:
    """The IMU samples of the file; None where it has no such track (it is not a GoPro's).

    opener: opens the file anew, seekable. ValueError naming the file (``where``), the time and the
    next step where blocks are damaged or lost, or do not say what their samples mean.
    """
    device, sensors, notes = "", dict[str, TrackSensor](), dict[str, None]()
    blocks = 0
    for start_s, end_s, data in _packets(opener, where):
        blocks += 1
        place = f"{where}: the telemetry block at {start_s:.3f} s"
        try:
            block = parse_block(data)
        except ValueError as error:
            raise ValueError(f"{place} cannot be read: {error}; {_AGAIN}") from None
        device = device or block.device
        for key, series in block.sensors.items():
            if series.note:
                notes[series.note] = None
            if key not in sensors:
                sensors[key] = TrackSensor(series.unit)
            try:
                sensors[key].add(series, start_s, end_s)
            except ValueError as error:
                raise ValueError(f"{place} does not go on with {key}: {error}; {_AGAIN}") from None
    for key, sensor in sensors.items():
        if sensor.blocks != blocks:
            raise ValueError(
                f"{where}: {key} has no samples in {blocks - sensor.blocks} of {blocks} telemetry "
                f"blocks; {_AGAIN}"
            )
    return Telemetry(device, sensors, tuple(notes)) if blocks else None


def _packets(opener: Callable[[], BinaryIO], where: str) -> Iterator[tuple[float, float, bytes]]:
    """The track's blocks, with start and end; none where it is not GoPro's."""
    with opener() as file:
        try:
            with av.open(file, "r", metadata_errors="replace") as container:
                # FFmpeg's name for tracks of type "gpmd" and a few others.
                tracks = [stream for stream in container.streams.data if stream.name == "bin_data"]
                named = [t for t in tracks if "GoPro MET" in t.metadata.get("handler_name", "")]
                if not tracks:
                    return
                track, known = (named or tracks)[0], bool(named)
                for other in container.streams:
                    if other.index != track.index:
                        other.discard = Discard.all
                if any(entry.pos + entry.size > container.size for entry in track.index_entries):
                    raise ValueError("it is truncated")
                for packet in container.demux(track):
                    if not packet.size:  # it tells that the track ends
                        continue
                    data = bytes(packet)
                    if not known and not data.startswith(b"DEVC"):
                        return
                    known = True
                    assert packet.pts is not None and packet.duration is not None  # of any MP4
                    start, end = packet.pts, packet.pts + packet.duration
                    yield float(start * packet.time_base), float(end * packet.time_base), data
        except (av.FFmpegError, OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ValueError(f"{where}: its telemetry cannot be read ({why}); {_AGAIN}") from None
