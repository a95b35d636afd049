"""HHAR: phones at the waist and watches on the wrists, 9 people, 6 activities, 50 to 200 Hz.

Source: Stisen et al., "Smart Devices are Different", SenSys 2015; UCI repository, "Heterogeneity
Activity Recognition". Four files, ``{Phones,Watch}_{accelerometer,gyroscope}.csv``, hold the rows
of all people and devices, 13 million in the largest, with columns

    Index, Arrival_Time (ms, Unix, when the application got it), Creation_Time (ns, the device's
    sensor clock: Unix time or time since it was switched on), x, y, z (m/s2, rad/s), User, Model,
    Device, gt (activity)

A recording is what one device measured of one person. Listing scans the files once, in blocks of
lines, and records the blocks in which each pair occurs; rows of a pair are close together. So
opening a recording reads its own blocks only, one at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from primus_scale.counted import counted
from shards import placements
from shards.files.source import Source
from shards.files.text_blocks import parse_block
from shards.readers.base import Reader
from shards.readers.rows import checked_listing, label_spans
from shards.recording import (
    ACCELEROMETER,
    GYROSCOPE,
    Device,
    Recording,
    RecordingRef,
    Samples,
    Sensor,
)

COLUMNS = (
    *("Index", "Arrival_Time", "Creation_Time", "x", "y", "z"),
    *("User", "Model", "Device", "gt"),
)
ACTIVITIES: dict[str, str | None] = {
    "bike": "cycling",
    "sit": "sitting",
    "stand": "standing",
    "walk": "walking",
    "stairsup": "walking upstairs",
    "stairsdown": "walking downstairs",
    "null": None,
    "": None,
}
# Rate of the data: the highest one of each model.
RATES_HZ = {
    "nexus4": 200.0,
    "s3": 150.0,
    "s3mini": 100.0,
    "samsungold": 50.0,
    "lgwatch": 200.0,
    "gear": 100.0,
}
_PLACEMENTS = {"Phones": placements.WAIST, "Watch": placements.WRIST}
_SENSORS = {"accelerometer": (ACCELEROMETER, "m/s2"), "gyroscope": (GYROSCOPE, "rad/s")}
_BLOCK_BYTES = 4 * 2**20
_SAME_CLOCK_S = 1.0  # Arrival_Time is at most some tenths of a second after Creation_Time


class _RowBlocks(NamedTuple):
    """Where a recording's rows of one sensor are: byte ranges of a file, each of whole lines.

    The ranges hold rows of other users and devices, too.
    """

    path: str
    ranges: Sequence[Sequence[int]]
    user: str
    device: str


class HharReader(Reader):
    """One recording for each person and device, named ``a-nexus4_1``."""

    name: ClassVar[str] = "hhar"
    # "Still exp": another experiment, with devices at rest.
    other_files: ClassVar[tuple[str, ...]] = ("Still exp*",)

    def recordings(self) -> list[RecordingRef]:
        """All pairs of person and device, from one scan of the files (3 GB in all)."""
        found: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(dict)
        for group in _PLACEMENTS:
            for sensor in _SENSORS:
                for path in self.source.find(f"**/{group}_{sensor}.csv"):
                    for pair, ranges in _scan(self.source, path).items():
                        if sensor in found[group, *pair]:
                            raise ValueError(
                                f"{self.source.locate(path)} is there twice; point --src at one "
                                "copy of the data set"
                            )
                        found[group, *pair][sensor] = {"path": path, "ranges": ranges}
        refs = [
            RecordingRef(
                f"{user}-{device}",
                tuple(entry["path"] for entry in sensors.values()),
                {"group": group, "user": user, "device": device, "sensors": sensors},
            )
            for (group, user, device), sensors in found.items()
        ]
        return checked_listing(
            self.source, refs, "Phones_accelerometer.csv, Watch_accelerometer.csv"
        )

    @contextmanager
    def open(self, ref: RecordingRef) -> Iterator[Recording]:
        """The recording; ValueError where it has no accelerometer rows, which hold the labels."""
        user, device = ref.details["user"], ref.details["device"]
        blocks = {
            sensor: _RowBlocks(entry["path"], entry["ranges"], user, device)
            for sensor, entry in ref.details["sensors"].items()
        }
        if "accelerometer" not in blocks:
            raise ValueError(
                f"{self.source.locate(ref.files[0])}: no accelerometer rows of user {user} and "
                f"device {device} in the file next to it; these rows have the labels"
            )
        notes: list[str] = []
        accelerometer = _read_times(self.source, blocks["accelerometer"], notes)
        where = f"{self.source.locate(blocks['accelerometer'].path)}: user {user}, device {device}"
        labels = label_spans(accelerometer.time_s, accelerometer.activity, ACTIVITIES, where)
        shifts = {"accelerometer": 0.0}
        if "gyroscope" in blocks:
            gyroscope = _read_times(self.source, blocks["gyroscope"], notes)
            shifts["gyroscope"] = _gyroscope_shift(accelerometer.delay_s, gyroscope.delay_s, notes)
        else:
            notes.append("no gyroscope rows")
        sensors = tuple(
            Sensor(channels, unit, partial(_samples, self.source, blocks[sensor], shifts[sensor]))
            for sensor, (channels, unit) in _SENSORS.items()
            if sensor in blocks
        )
        placement = _PLACEMENTS[ref.details["group"]]
        rate_hz = RATES_HZ.get(device.rpartition("_")[0])
        yield Recording(
            dataset=self.name,
            name=ref.name,
            person=f"{self.name}-{user}",
            devices=(Device(device, placement, sensors, rate_hz),),
            labels=labels,
            sync="the device's sensor clock (Creation_Time, ns), checked against Arrival_Time",
            notes=tuple(notes),
        )


class _SensorTimes(NamedTuple):
    """Creation_Time (s) and activity of a sensor ``(n,)``; median of arrival minus creation (s)."""

    time_s: np.ndarray
    activity: np.ndarray
    delay_s: float


def _scan(source: Source, path: str) -> dict[tuple[str, str], list[list[int]]]:
    """Byte ranges (ends excluded) of the blocks in which each pair of user and device occurs."""
    found: dict[tuple[str, str], list[list[int]]] = defaultdict(list)
    with source.open(path) as stream:
        header = stream.readline()
        names = tuple(header.decode("utf-8-sig", "replace").strip().split(","))
        if names != COLUMNS:
            raise ValueError(
                f"{source.locate(path)}: its first line is {','.join(names)[:200]!r}, not "
                f"{','.join(COLUMNS)!r}; download it again"
            )
        start = len(header)
        while block := stream.read(_BLOCK_BYTES):
            block += stream.readline()
            rows, _ = _parse(block, ("User", "Device"), source.locate(path))
            pairs = rows.group_by(["User", "Device"]).aggregate([]).to_pylist()
            for pair in pairs:
                ranges = found[pair["User"], pair["Device"]]
                if ranges and ranges[-1][1] == start:
                    ranges[-1][1] = start + len(block)
                else:
                    ranges.append([start, start + len(block)])
            start += len(block)
    return dict(found)


def _parse(block: bytes, columns: Sequence[str], where: str) -> tuple[pa.Table, int]:
    """Columns of a block of lines, as text, and the number of lines without ten fields."""
    malformed = 0

    def skip(_: Any) -> str:
        nonlocal malformed
        malformed += 1
        return "skip"

    try:
        table = parse_block(
            block,
            COLUMNS,
            pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=skip),
            pyarrow.csv.ConvertOptions(
                include_columns=list(columns), column_types=dict.fromkeys(COLUMNS, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{where} holds bytes that are no text ({error}); download it again"
        ) from None
    return table, malformed


def _read_blocks(stream: BinaryIO, ranges: Sequence[Sequence[int]], where: str) -> Iterator[bytes]:
    """The ranges in pieces of whole lines; ValueError where the file ends too early."""
    for start, stop in ranges:
        stream.seek(start)
        while stream.tell() < stop:
            block = stream.read(min(_BLOCK_BYTES, stop - stream.tell()))
            if not block:
                raise ValueError(
                    f"{where} ends at byte {stream.tell()}, before rows that it had when it was "
                    "listed; download it again, and start again"
                )
            yield block + stream.readline() if not block.endswith(b"\n") else block


def _read_rows(
    source: Source, blocks: _RowBlocks, columns: Sequence[str], notes: list[str] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The recording's rows in chunks: numbers as float64, activity as text.

    ValueError naming file, row and column where a cell is not a number. Lines that end early have
    no user: they are left out, and counted in ``notes`` if these are given.
    """
    where = source.locate(blocks.path)
    malformed = 0
    with source.open(blocks.path) as stream:
        for block in _read_blocks(stream, blocks.ranges, where):
            table, skipped = _parse(block, ("Index", *columns, "User", "Device"), where)
            malformed += skipped
            mine = pc.and_(
                pc.equal(table["User"], blocks.user), pc.equal(table["Device"], blocks.device)
            )
            rows = table.filter(mine)
            if rows.num_rows:
                yield {
                    name: rows[name].to_numpy() if name == "gt" else _numbers(rows, name, where)
                    for name in columns
                }
    if malformed and notes is not None:
        notes.append(
            f"left out {counted(malformed, 'line')} of {blocks.path} without ten fields, in the "
            "part of the file where this recording lies"
        )


def _numbers(rows: pa.Table, name: str, where: str) -> np.ndarray:
    """A column of text as float64, NaN where it is empty."""
    texts = pc.if_else(pc.equal(rows[name], ""), "nan", rows[name])
    try:
        return np.asarray(pc.cast(texts, pa.float64()).to_numpy())
    except pa.ArrowInvalid as error:
        wrong = next(row for row, text in enumerate(texts.to_pylist()) if not _is_number(text))
        raise ValueError(
            f"{where}: column {name} of the row with Index {rows['Index'][wrong]} holds "
            f"{texts[wrong].as_py()!r}, not a number; correct the row, or download the file again"
        ) from error


def _is_number(text: str) -> bool:
    try:
        pc.cast(pa.scalar(text), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _read_times(source: Source, blocks: _RowBlocks, notes: list[str]) -> _SensorTimes:
    """One pass over a sensor's rows; adds a note where its clock and that of arrival disagree."""
    created, arrived, activities = [np.empty(0)], [np.empty(0)], [np.empty(0, dtype=object)]
    for rows in _read_rows(source, blocks, ("Arrival_Time", "Creation_Time", "gt"), notes):
        arrived.append(rows["Arrival_Time"] / 1e3)
        created.append(rows["Creation_Time"] / 1e9)
        activities.append(rows["gt"])
    time_s, arrival_s = np.concatenate(created), np.concatenate(arrived)
    both = np.isfinite(time_s) & np.isfinite(arrival_s)
    if not both.any():
        raise ValueError(
            f"{source.locate(blocks.path)}: user {blocks.user}, device {blocks.device} has no row "
            "with Creation_Time and Arrival_Time; download the file again"
        )
    span_s, arrival_span_s = np.ptp(time_s[both]), np.ptp(arrival_s[both])
    if abs(span_s - arrival_span_s) > max(_SAME_CLOCK_S, 0.1 * arrival_span_s):
        notes.append(
            f"{blocks.path}: Creation_Time spans {span_s:.1f} s but Arrival_Time "
            f"{arrival_span_s:.1f} s; the sensor clock jumps, or does not count nanoseconds"
        )
    delay_s = float(np.median(arrival_s[both] - time_s[both]))
    return _SensorTimes(time_s, np.concatenate(activities), delay_s)


def _gyroscope_shift(accelerometer_s: float, gyroscope_s: float, notes: list[str]) -> float:
    """Seconds that put the gyroscope's clock on the accelerometer's.

    On some devices the two sensors count from different times. One application receives both, so
    the difference of their delays is the difference of their clocks.
    """
    apart_s = gyroscope_s - accelerometer_s
    if abs(apart_s) <= _SAME_CLOCK_S:
        return 0.0
    notes.append(
        f"the gyroscope's clock was {-apart_s:+.3f} s from the accelerometer's; put on it by "
        "Arrival_Time, right to some tens of milliseconds"
    )
    return apart_s


def _samples(source: Source, blocks: _RowBlocks, shift_s: float) -> Iterator[Samples]:
    for rows in _read_rows(source, blocks, ("Creation_Time", "x", "y", "z")):
        values = np.stack([rows[axis] for axis in "xyz"], axis=1)
        yield Samples(rows["Creation_Time"] / 1e9 + shift_s, values)


READER = HharReader
