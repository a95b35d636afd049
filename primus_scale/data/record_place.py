"""Where a record is in a shard folder, and how it is read from there and checked."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from primus_scale.data.index import SessionPart, ShardEntry
from primus_scale.data.members import split_record
from primus_scale.data.record_columns import RecordEntry, TailEntry
from primus_scale.storage.folder import Folder
from primus_scale.storage.foreign import decoding

try:  # of the extra ``speed``: the same checksum in a quarter of the time
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

_PAGE = 4096
# Where a buffer begins within its page. Records begin at multiples of 512 bytes. On some processors
# (AMD Zen 3) a copy by the kernel takes six times as long if the position of the target within its
# page is less than 32 bytes behind that of the source.
_IN_PAGE = 64


class RecordPlace(NamedTuple):
    """Where a record is in a folder. shard: name of the tar. number: in the shard.

    entry: its bytes. tail: the bytes after its pictures. sessions: the parts of sessions that it
    consists of. The last two are None where the index does not have them.
    """

    shard: str
    number: int
    entry: RecordEntry
    tail: TailEntry | None = None
    sessions: tuple[SessionPart, ...] | None = None


def list_places(shards: Iterable[ShardEntry]) -> list[RecordPlace]:
    """The place of every record of ``shards``, in order."""
    return [place_of(shard, number) for shard in shards for number in range(len(shard.records))]


def place_of(shard: ShardEntry, number: int) -> RecordPlace:
    """The place of a record of a shard."""
    return RecordPlace(
        shard.name,
        number,
        shard.records[number],
        shard.tails[number] if len(shard.tails) else None,
        shard.sessions[number] if shard.sessions else None,
    )


def kept_parts(
    parts: tuple[SessionPart, ...] | None, rows: np.ndarray
) -> tuple[SessionPart, ...] | None:
    """The parts of a record after only ``rows`` of it are kept; None where it has no parts."""
    if not parts:
        return parts
    ends = np.cumsum([part.windows for part in parts])
    counts = np.bincount(np.searchsorted(ends, rows, side="right"), minlength=len(parts))
    kept = zip(parts, counts.tolist(), strict=True)
    return tuple(part._replace(windows=count) for part, count in kept if count)


class ReadBuffers(threading.local):
    """Memory for one record, used again for the next; each thread has its own.

    With fresh memory a read would take more than twice as long: the system clears each page of it
    at the first access.
    """

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    def take(self, length: int) -> memoryview:
        """``length`` bytes; the thread's next call returns the same memory."""
        if length > len(self._memory):
            memory = np.empty(length + 2 * _PAGE, dtype=np.uint8)
            start = -memory.ctypes.data % _PAGE + _IN_PAGE
            self._memory = memory[start : start + length].data
        return self._memory[:length]


def read_record(
    folder: Folder,
    place: RecordPlace,
    *,
    pictures: bool = True,
    buffers: ReadBuffers | None = None,
    check: bool = True,
) -> dict[str, memoryview]:
    """Members of a record by extension, checked against its entry.

    Without ``pictures`` only the members after the pictures are read, if the index has their
    position; otherwise all members. buffers: memory to read into; the members are then valid until
    the thread's next read. None: new memory. Without ``check`` the bytes are not compared with
    their checksum. ValueError naming shard and record where the bytes are not those that were
    written, or are no record.
    """
    shard, number, entry, tail, _ = place
    part = entry if pictures or tail is None else tail
    start = entry.offset + entry.length - part.length
    if buffers is None:
        data = memoryview(folder.read_range(shard, start, part.length))
    else:
        data = buffers.take(part.length)
        data = data[: folder.read_range_into(data, shard, start)]
    if len(data) != part.length or (check and crc32(data) != part.crc32):
        raise ValueError(
            f"{folder.locate(shard)}: record {number} (bytes {start} to "
            f"{start + part.length}) is not what was written; {_next_step(folder)}"
        )
    with decoding_record(folder, place):
        return split_record(data)[1]


def decoding_record(folder: Folder, place: RecordPlace) -> AbstractContextManager[None]:
    """Turn errors of the block into a ValueError that names shard, record and the next step."""
    return decoding(folder.locate(place.shard), f"record {place.number}", advice=_next_step(folder))


def _next_step(folder: Folder) -> str:
    """What a user can do about a damaged record."""
    return (
        f"find all such with primus-scale shards verify {folder.url}, restore the shard or "
        "write the folder again, then start again"
    )
