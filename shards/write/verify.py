"""``shards verify``: read a whole shard folder again and compare it with its index.

Training trusts the index and checks only what it reads; this looks at everything once: files,
checksums, records, shapes, values, identities, statistics. Faults are reported.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import BinaryIO

import numpy as np

from primus_scale.counted import counted
from primus_scale.data.block_check import expected_block
from primus_scale.data.index import (
    INDEX_NAME,
    IndexFile,
    SessionPart,
    ShardEntry,
    read_index_file,
)
from primus_scale.data.members import Data, decode_member, split_record
from primus_scale.data.record import Block
from primus_scale.data.record_place import RecordPlace, list_places
from primus_scale.data.shard_set import decode_record
from primus_scale.sample import CHANNELS, UNITS
from primus_scale.storage.folder import Folder
from primus_scale.storage.foreign import decode_picture, reason, shorten
from shards.write.checks import ChannelStatistics, block_faults
from shards.write.sessions import session_parts

_CHUNK_BYTES = 2**20
_STATISTICS_TOLERANCE = 1e-6  # of the index against a second pass in float64


@dataclass
class VerifyReport:
    """What was found: windows counted by data set, placement, modality and label; every fault."""

    url: str
    windows: int = 0
    records: int = 0
    shards: int = 0
    datasets: Counter[str] = field(default_factory=Counter)
    placements: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def __str__(self) -> str:
        lines = [
            f"{self.url}: {counted(self.windows, 'window')} in {counted(self.records, 'record')}, "
            f"{counted(self.shards, 'shard')}"
        ]
        for title in ("datasets", "placements", "modalities", "labels"):
            counts: Counter[str] = getattr(self, title)
            if counts:
                lines.append(f"  {title}")
                width = max(map(len, counts))
                lines += [f"    {name:<{width}}  {counts[name]:>9}" for name in sorted(counts)]
        lines += [f"  FAULT  {fault}" for fault in self.faults]
        lines.append(f"  {len(self.faults)} faults" if self.faults else "  no fault found")
        return "\n".join(lines)


def verify(url: str) -> VerifyReport:
    """Read everything in the shard folder at ``url`` again; faults are reported, not raised.

    Only a folder without an index raises FileNotFoundError, and storage that fails, OSError.
    """
    report = VerifyReport(url=Folder(url).url)
    try:
        file = read_index_file(url)
    except ValueError as error:
        report.faults.append(str(error))
        return report
    _Verification(file, report).run()
    return report


class _Verification:
    """One pass over a folder. Faults and counts go to ``report``."""

    def __init__(self, file: IndexFile, report: VerifyReport) -> None:
        self._file = file
        self._index = file.index
        self._report = report
        self._folder = Folder(report.url)
        self._statistics = ChannelStatistics(len(self._index.channels))
        self._uids: set[int] = set()
        self._keys: set[str] = set()
        self._complete = True  # whether all records were read

    def run(self) -> None:
        """Check the index and the list of files, then each shard, then the whole."""
        try:
            self._file.check_seal()
        except ValueError as error:
            self._report.faults.append(str(error))
        self._check_channels()
        named = {shard.name for shard in self._index.shards}
        for name in self._folder.names():
            if name.endswith(".tar") and name not in named:
                self._fault(name, "lies in the folder, but the index does not name it")
        for shard in self._index.shards:
            self._check_shard(shard)
        # With records missing, the statistics of the rest say nothing.
        if self._complete:
            self._check_statistics()

    def _check_channels(self) -> None:
        """The channels that encoders are trained on have their order, and are in SI units."""
        known = [channel for channel in self._index.channels if channel in CHANNELS]
        if known != [channel for channel in CHANNELS if channel in known]:
            self._fault(INDEX_NAME, f"channels are {known}, must be in the order {CHANNELS}")
        expected = dict(zip(CHANNELS, UNITS, strict=True))
        for channel, unit in zip(self._index.channels, self._index.units, strict=True):
            if unit != expected.get(channel, unit):
                self._fault(
                    INDEX_NAME, f"units: {channel} is in {unit!r}, must be in {expected[channel]}"
                )

    def _check_shard(self, shard: ShardEntry) -> None:
        self._report.shards += 1
        try:
            size = self._folder.size(shard.name)
            with self._folder.open(shard.name) as stream:
                self._check_stream(shard, stream, size)
        except FileNotFoundError:
            self._incomplete(shard.name, "missing")
        except OSError as error:
            self._incomplete(shard.name, f"cannot be read: {error}")

    def _check_stream(self, shard: ShardEntry, stream: BinaryIO, size: int) -> None:
        """One pass through the file: records where the index has them, then what follows."""
        digest = hashlib.sha256()
        taken = 0
        for place in list_places([shard]):
            # Never more than the file has: lengths in the index may be absurd.
            data = stream.read(min(place.entry.length, size - taken))
            digest.update(data)
            taken += len(data)
            self._check_record(f"{shard.name} record {place.number}", place, data)
        empty = True
        for chunk in _chunks(stream):
            digest.update(chunk)
            empty = empty and not any(chunk)
        if size != shard.size:
            self._fault(shard.name, f"has {size} bytes, the index says {shard.size}")
        elif digest.hexdigest() != shard.sha256:
            self._fault(shard.name, "sha256 differs from that of the index: bytes were altered")
        elif not empty:
            self._fault(shard.name, "holds more behind the last record that the index names")

    def _check_record(self, where: str, place: RecordPlace, data: bytes) -> None:
        self._report.records += 1
        entry, tail = place.entry, place.tail
        if len(data) != entry.length:
            self._incomplete(where, f"the file ends after {len(data)} of its {entry.length} bytes")
            return
        if zlib.crc32(data) != entry.crc32:
            self._incomplete(where, "crc32 differs from that of the index: bytes were altered")
            return
        if tail is not None and zlib.crc32(data[-tail.length :]) != tail.crc32:
            self._fault(where, "tail: its crc32 differs from that of the index")
        block = self._decode(where, data)
        if block is None:
            return
        expected = expected_block(self._index, entry.windows)
        faults = [*block_faults(block, expected, self._index.labels)]
        for fault in faults:
            self._fault(where, fault)
        self._check_uids(where, block)
        self._take_statistics(block)
        self._report.windows += len(block)
        if not faults:
            self._check_sessions(where, place, block)
            self._count(block)

    def _decode(self, where: str, data: bytes) -> Block | None:
        """The record's windows; None where a member is not as it should be."""
        problems = []
        block = None
        try:
            key, members = split_record(data)
            problems += [*_member_faults(members)]
            if not problems:
                block = decode_record(members, self._index)
            if key in self._keys:
                self._fault(where, f"another record has the same key, {key}")
            self._keys.add(key)
        except Exception as error:  # of any kind: anybody may have written the record
            problems.append(reason(error))
        for problem in problems:
            self._incomplete(where, problem)
        return block

    def _check_uids(self, where: str, block: Block) -> None:
        for uid in block.uid.ravel().tolist():
            if uid in self._uids:
                self._fault(where, f"window {uid} is there more than once")
            self._uids.add(uid)

    def _check_sessions(self, where: str, place: RecordPlace, block: Block) -> None:
        """The parts of sessions in the index are those of the block's columns."""
        found = session_parts(block)
        if place.sessions is None or place.sessions == found:
            return
        pairs = enumerate(zip_longest(place.sessions, found))
        number, stated, part = next((n, a, b) for n, (a, b) in pairs if a != b)
        self._fault(where, f"sessions: part {number} is {_row(stated)}, the data's {_row(part)}")

    def _take_statistics(self, block: Block) -> None:
        shape = len(self._index.channels), self._index.window_samples
        if block.imu.shape[1:] == shape and np.isfinite(block.imu).all():
            self._statistics.add(block.imu)
        else:
            self._complete = False

    def _count(self, block: Block) -> None:
        report = self._report
        report.modalities["imu"] += len(block)
        for row, meta in enumerate(block.metas):
            report.datasets[meta.dataset] += 1
            report.placements[meta.placement] += 1
            report.labels[meta.label or "(none)"] += 1
            if self._index.kind == "window":
                report.modalities["video"] += bool(block.frames[row])
                report.modalities["text"] += bool(meta.texts)
        for modality, present in block.present.items():
            report.modalities[modality] += int(present.sum())

    def _check_statistics(self) -> None:
        for name in ("mean", "std"):
            found = np.array(getattr(self._statistics, name)())
            stated = np.array(getattr(self._index, name))
            if not np.allclose(found, stated, rtol=_STATISTICS_TOLERANCE, atol=1e-6):
                self._fault(INDEX_NAME, f"{name} is {stated.tolist()}, the data's {found.tolist()}")

    def _incomplete(self, where: str, what: str) -> None:
        """A fault because of which windows are not read."""
        self._complete = False
        self._fault(where, what)

    def _fault(self, where: str, what: str) -> None:
        self._report.faults.append(f"{where}: {shorten(what)}")


def _member_faults(members: Mapping[str, Data]) -> Iterator[str]:
    """What is wrong with the members of a record, each by itself."""
    for name, data in members.items():
        try:
            if name.endswith(".jpg"):
                decode_picture(bytes(data), name)
            else:
                decode_member(name, data)
        except ValueError as error:
            yield str(error)


def _row(part: SessionPart | None) -> str:
    return "missing" if part is None else str(list(part))


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk
