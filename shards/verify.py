"""``shards verify``: read a whole shard folder again and hold it against its index.

Training trusts the index and checks only what it reads; this looks at everything once: files,
checksums, records, shapes, values, identities, statistics.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from PIL import Image

from primus_scale.data.index import INDEX_NAME, RecordEntry, ShardEntry, ShardIndex, read_index
from primus_scale.data.record import Block, decode_block, decode_record, decode_window, make_block
from primus_scale.data.storage import Folder
from shards.checks import ChannelStatistics, check_columns, describe

_CHUNK = 2**20
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
            f"{self.url}: {self.windows} windows in {self.records} records, {self.shards} shards"
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

    Only a folder without an index at all raises: FileNotFoundError.
    """
    report = VerifyReport(url=Folder(url).url)
    try:
        index = read_index(url)
    except ValueError as error:
        report.faults.append(str(error))
        return report
    _Verification(index, report).run()
    return report


class _Verification:
    """One pass over a folder. Faults and counts go to ``report``."""

    def __init__(self, index: ShardIndex, report: VerifyReport) -> None:
        self._index = index
        self._report = report
        self._folder = Folder(report.url)
        self._statistics = ChannelStatistics(len(index.channels))
        self._uids: set[int] = set()

    def run(self) -> None:
        """Check the list of files, then each shard, then the whole."""
        named = {shard.name for shard in self._index.shards}
        for name in self._folder.names():
            if name.endswith(".tar") and name not in named:
                self._fault(name, "lies in the folder, but the index does not name it")
        for shard in self._index.shards:
            self._check_shard(shard)
        # With records missing, the statistics of the rest say nothing.
        if self._report.ok:
            self._check_statistics()

    def _check_shard(self, shard: ShardEntry) -> None:
        self._report.shards += 1
        try:
            with self._folder.open(shard.name) as stream:
                self._check_stream(shard, stream)
        except FileNotFoundError:
            self._fault(shard.name, "missing")
        except OSError as error:
            self._fault(shard.name, f"cannot be read: {error}")

    def _check_stream(self, shard: ShardEntry, stream: BinaryIO) -> None:
        """One pass through the file: records where the index has them, then what follows."""
        digest = hashlib.sha256()
        size = 0
        for number, entry in enumerate(shard.records):
            data = stream.read(entry.length)
            digest.update(data)
            size += len(data)
            self._check_record(f"{shard.name} record {number}", entry, data)
        for chunk in _chunks(stream):
            digest.update(chunk)
            size += len(chunk)
        if size != shard.size:
            self._fault(shard.name, f"has {size} bytes, the index says {shard.size}")
        elif digest.hexdigest() != shard.sha256:
            self._fault(shard.name, "sha256 differs from that of the index: bytes were altered")

    def _check_record(self, where: str, entry: RecordEntry, data: bytes) -> None:
        self._report.records += 1
        if len(data) != entry.length:
            self._fault(where, f"the file ends after {len(data)} of its {entry.length} bytes")
            return
        if zlib.crc32(data) != entry.crc32:
            self._fault(where, "crc32 differs from that of the index: bytes were altered")
            return
        try:
            block = self._decode(data)
        except ValueError as error:
            self._fault(where, str(error))
            return
        if len(block) != entry.windows:
            self._fault(where, f"holds {len(block)} windows, the index says {entry.windows}")
        self._check_imu(where, block)
        self._check_uids(where, block)
        self._count(block)

    def _decode(self, data: bytes) -> Block:
        """The record's windows; ValueError where a member is not as it should be."""
        members = decode_record(data)
        if self._index.kind == "packed":
            block = decode_block(members)
            check_columns(block, self._index.teachers, len(self._index.labels))
            return block
        window = decode_window(members)
        for number, frame in enumerate(window.frames):
            _check_picture(number, frame)
        return make_block(
            window.imu[None], [window.meta], self._index.labels, frames=(window.frames,)
        )

    def _check_imu(self, where: str, block: Block) -> None:
        shape = (len(block.metas), len(self._index.channels), self._index.window_samples)
        if block.imu.shape != shape:
            self._fault(where, f"imu has shape {block.imu.shape}, the index says {shape}")
            return
        finite = np.isfinite(block.imu).all(axis=(1, 2))
        for row in np.flatnonzero(~finite):
            self._fault(where, f"{describe(block.metas[row])} holds NaN or infinite samples")
        self._statistics.add(block.imu[finite])

    def _check_uids(self, where: str, block: Block) -> None:
        for meta in block.metas:
            if meta.uid in self._uids:
                self._fault(where, f"{describe(meta)} is there more than once")
            self._uids.add(meta.uid)

    def _count(self, block: Block) -> None:
        report = self._report
        report.windows += len(block)
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

    def _fault(self, where: str, what: str) -> None:
        self._report.faults.append(f"{where}: {what}")


def _check_picture(number: int, frame: bytes) -> None:
    try:
        Image.open(io.BytesIO(frame)).load()
    except OSError:  # what PIL raises for pictures that are cut or no pictures
        raise ValueError(f"frame {number} is a damaged JPEG picture") from None


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk
