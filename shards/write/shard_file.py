"""One tar file of a shard folder: its records written, and its entry in the index.

entry = write_shard(folder, shard_name(0), records)
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from primus_scale.data.index import SessionPart, ShardEntry
from primus_scale.data.members import position_after_pictures
from primus_scale.data.record import Block, encode_block
from primus_scale.data.record_columns import RecordEntry, TailEntry
from primus_scale.storage.folder import Folder, explain_write_errors
from shards.write.sessions import session_parts


def shard_name(number: int) -> str:
    """Name of a shard by its place in the index."""
    return f"shard-{number:06d}.tar"


def window_key(uid: int) -> str:
    """Base name of a window's files."""
    return f"{uid % 2**64:016x}"


def block_record(number: int, block: Block, *, sessions: bool) -> ShardRecord:
    """The record of a block, named by its place in the index.

    sessions: with the parts of sessions that it consists of.
    """
    parts = session_parts(block) if sessions else ()
    return ShardRecord(f"block-{number:08d}", encode_block(block), len(block), parts)


class ShardRecord(NamedTuple):
    """A record to be written: base name and members of its files, and what the index says of it."""

    key: str
    members: dict[str, bytes]
    windows: int = 1
    sessions: tuple[SessionPart, ...] = ()


def write_shard(folder: Folder, name: str, records: Iterable[ShardRecord]) -> ShardEntry:
    """Write a whole shard of records; it appears when it is finished.

    OSError naming the folder where it cannot be written; whatever ``records`` raises.
    """
    with explain_write_errors(folder.url):
        shard = ShardFile(folder, name)
    try:
        for record in records:
            with explain_write_errors(folder.url):
                shard.write(record)
        with explain_write_errors(folder.url):
            return shard.finish()
    except BaseException:
        shard.discard()
        raise


class ShardFile:
    """A tar file being written to its staging place."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._name = name
        self._records: list[tuple[int, int, int]] = []
        self._sessions: list[tuple[SessionPart, ...]] = []
        with ExitStack() as stack:
            self._path = stack.enter_context(folder.staging(name))
            self._file = stack.enter_context(self._path.open("wb"))
            # Not by webdataset's writer, which does the same: it imports torch for two seconds.
            self._tar = tarfile.TarFile(fileobj=self._file, mode="w")
            self._stack = stack.pop_all()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return int(self._tar.offset)

    def write(self, record: ShardRecord) -> None:
        """Append a record."""
        start = self.size
        for extension, data in sorted(record.members.items()):
            member = tarfile.TarInfo(f"{record.key}.{extension}")
            # No times and owners: equal windows give equal bytes.
            member.size, member.mode = len(data), 0o444
            self._tar.addfile(member, io.BytesIO(data))
        self._records.append((start, self.size - start, record.windows))
        self._sessions.append(record.sessions)

    def finish(self) -> ShardEntry:
        """Close the tar, take its checksums, and let it appear in the folder."""
        with self._stack:
            self._tar.close()
            self._file.close()
            return self._entry(self._path)

    def discard(self) -> None:
        """Leave the staging block by an exception, which drops the file."""
        with suppress(_DiscardError, OSError), self._stack:
            self._tar.close()  # fails once more on a full disk, and writes later if left open
            raise _DiscardError

    def _entry(self, path: Path) -> ShardEntry:
        """Checksums of what lies on disk, not of what was meant to."""
        digest = hashlib.sha256()
        records, tails = [], []
        with path.open("rb") as file:
            for offset, length, windows in self._records:
                data = file.read(length)
                digest.update(data)
                records.append(RecordEntry(offset, length, windows, zlib.crc32(data)))
                tail = data[position_after_pictures(data) :]
                tails.append(TailEntry(len(tail), zlib.crc32(tail)))
            digest.update(file.read())
            size = file.tell()
        if all(tail.length == record.length for tail, record in zip(tails, records, strict=True)):
            tails = []
        return ShardEntry(
            name=self._name,
            size=size,
            sha256=digest.hexdigest(),
            records=tuple(records),
            tails=tuple(tails),
            sessions=tuple(self._sessions) if any(self._sessions) else (),
        )


class _DiscardError(Exception):
    """Raised and caught in ``ShardFile.discard`` only."""
