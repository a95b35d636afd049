"""Records of shards as columns, and the binary file in which an index of many records keeps them.

A record takes about 13 bytes as columns, 500 as a tuple. ``records.bin`` holds one column after the
other, each over the records of all shards, little-endian: offset, length, windows and crc32, and
length and crc32 of the tails where the index has tails. ``index.json`` says how many records each
shard has, the type of each column, and the sha256 of the file. The seal of the index covers this.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, overload

import numpy as np
from pydantic import ConfigDict, Field

from primus_scale.storage.folder import Folder

RECORDS_NAME = "records.bin"
_CHUNK_BYTES = 64 * 2**20  # that are read and hashed at once
_ALIGNMENT = 8
_TYPES = ("|u1", "<u2", "<u4", "<u8")

Count = Annotated[int, Field(ge=0, lt=2**63)]
Crc32 = Annotated[int, Field(ge=0, lt=2**32)]


class RecordEntry(NamedTuple):
    """Position of a record in its shard.

    ``offset`` and ``length`` (bytes) span all tar members of the record with their headers and
    padding, so one ranged read loads the record. ``crc32``: of these bytes. ``windows``: in it.
    """

    offset: Count
    length: Count
    windows: Count
    crc32: Crc32


class TailEntry(NamedTuple):
    """The end of a record, all members after its pictures: length in bytes, and ``crc32``."""

    length: Count
    crc32: Crc32


Row = TypeVar("Row", RecordEntry, TailEntry)


class Columns(Sequence[Row], Generic[Row]):
    """Rows of one kind, held as a column for each of their fields."""

    def __init__(self, kind: Callable[..., Row], columns: Sequence[np.ndarray]) -> None:
        self._kind: Callable[..., Row] = kind
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self.columns[0])

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Columns[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | Columns[Row]:
        if isinstance(place, slice):
            return Columns(self._kind, [column[place] for column in self.columns])
        return self._kind(*(int(column[place]) for column in self.columns))

    def __iter__(self) -> Iterator[Row]:
        return map(self._kind, *(column.tolist() for column in self.columns))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        theirs = columns_of(other, len(self.columns))
        return all(map(np.array_equal, self.columns, theirs))

    __hash__ = None  # type: ignore[assignment]


def columns_of(rows: Sequence[Any], count: int) -> tuple[np.ndarray, ...]:
    """The ``count`` fields of rows as columns, int64 where the rows are tuples."""
    if isinstance(rows, Columns):
        return rows.columns
    table = np.array(rows, dtype=np.int64).reshape(len(rows), count)
    return tuple(np.ascontiguousarray(column) for column in table.T)


@dataclass(frozen=True)
class RecordFileEntry:
    """What an index says of its file of columns.

    sha256 (hex): of the file. counts: records of each shard. records, tails: the type of each
    column, in the order of the fields of ``RecordEntry`` and ``TailEntry``; () without tails.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    counts: tuple[Count, ...]
    records: Annotated[tuple[Literal[_TYPES], ...], Field(min_length=4, max_length=4)]  # type: ignore[valid-type]
    tails: Annotated[tuple[Literal[_TYPES], ...], Field(max_length=2)] = ()  # type: ignore[valid-type]

    def __post_init__(self) -> None:
        if len(self.tails) not in (0, 2):
            raise ValueError(f"record_file: tails has {len(self.tails)} columns, must have 2 or 0")

    @property
    def types(self) -> list[np.dtype[Any]]:
        """The types of all columns."""
        return [np.dtype(name) for name in (*self.records, *self.tails)]

    def column_sizes(self) -> list[int]:
        """Bytes of each column, padded to a multiple of eight, so that numbers are aligned."""
        rows = sum(self.counts)
        return [-(-rows * kind.itemsize // _ALIGNMENT) * _ALIGNMENT for kind in self.types]


class RecordColumns:
    """The columns of all records of an index, handed out shard by shard.

    entry: describes the columns. The order of calls is that of the index: ``next_records`` of a
    shard, then ``tails`` of it, then the next shard.
    """

    def __init__(self, entry: RecordFileEntry, columns: Sequence[np.ndarray]) -> None:
        self.entry = entry
        self.columns = columns
        ends = np.cumsum((0, *entry.counts)).tolist()
        self._spans = list(itertools.pairwise(ends))
        self._shard = -1

    def next_records(self) -> Columns[RecordEntry]:
        """The records of the next shard; ValueError where there is none."""
        self._shard += 1
        return Columns(RecordEntry, self._cut(slice(4)))

    def tails(self) -> Columns[TailEntry]:
        """The tails of the shard whose records ``next_records`` gave last."""
        return Columns(TailEntry, self._cut(slice(4, None)))

    def check_all_taken(self) -> None:
        """ValueError where shards are left."""
        if self._shard != len(self._spans) - 1:
            raise ValueError(
                f"record_file: counts has {len(self._spans)} shards, the index {self._shard + 1}"
            )

    def _cut(self, which: slice) -> list[np.ndarray]:
        if self._shard >= len(self._spans):
            raise ValueError(f"record_file: counts has {len(self._spans)} shards, too few")
        first, last = self._spans[self._shard]
        return [column[first:last] for column in self.columns[which]]


def pack_records(
    shards: Sequence[tuple[Sequence[RecordEntry], Sequence[TailEntry]]],
) -> RecordColumns:
    """The columns of all shards, each in the smallest type that holds its values."""
    parts = [columns_of(records, 4) for records, _ in shards]
    has_tails = any(len(tails) for _, tails in shards)
    if has_tails:
        # A shard whose records have no pictures has no tails; here its whole records are tails.
        rests = [
            columns_of(tails, 2) if len(tails) else (part[1], part[3])
            for part, (_, tails) in zip(parts, shards, strict=True)
        ]
        parts = [(*part, *rest) for part, rest in zip(parts, rests, strict=True)]
    columns = [_smallest(np.concatenate(pieces)) for pieces in zip(*parts, strict=True)]
    names = [column.dtype.str for column in columns]
    digest = hashlib.sha256()
    for part in _parts(columns):
        digest.update(part)
    counts = tuple(len(records) for records, _ in shards)
    entry = RecordFileEntry(digest.hexdigest(), counts, tuple(names[:4]), tuple(names[4:]))
    return RecordColumns(entry, columns)


def write_records(packed: RecordColumns, folder: Folder) -> None:
    """Write the columns into ``folder``, whole or not at all."""
    with folder.staging(RECORDS_NAME) as path, path.open("wb") as stream:
        for part in _parts(packed.columns):
            stream.write(part)


def _parts(columns: Sequence[np.ndarray]) -> Iterator[memoryview | bytes]:
    """The content of the file: each column, and the bytes that pad it."""
    for column in columns:
        yield column.data
        yield bytes(-column.nbytes % _ALIGNMENT)


def read_records(entry: RecordFileEntry, folder: Folder) -> RecordColumns:
    """The columns in ``folder``; ValueError where they are not those that were written."""
    place = folder.locate(RECORDS_NAME)
    advice = "copy it again from where it is whole, or write the shards again"
    try:
        size = folder.size(RECORDS_NAME)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {place}, which the index names; {advice}") from None
    sizes = entry.column_sizes()
    if size != sum(sizes):
        raise ValueError(f"{place} has {size} bytes, the index says {sum(sizes)}; {advice}")
    memory = np.empty(size, dtype=np.uint8)
    digest = hashlib.sha256()
    for start in range(0, size, _CHUNK_BYTES):
        part = memory[start : start + _CHUNK_BYTES].data
        folder.read_range_into(part, RECORDS_NAME, start)
        digest.update(part)
    if digest.hexdigest() != entry.sha256:
        raise ValueError(f"{place} is not what was written: its sha256 differs; {advice}")
    columns, start, rows = [], 0, sum(entry.counts)
    for kind, length in zip(entry.types, sizes, strict=True):
        columns.append(np.frombuffer(memory.data, dtype=kind, count=rows, offset=start))
        start += length
    return RecordColumns(entry, columns)


def _smallest(column: np.ndarray) -> np.ndarray:
    most = int(column.max()) if len(column) else 0
    kind = next(name for name in _TYPES if most < 2 ** (8 * np.dtype(name).itemsize))
    return column.astype(kind)


def check_positions(records: Sequence[RecordEntry], size: int) -> None:
    """ValueError where records do not follow each other from byte 0, or end beyond ``size``."""
    if not len(records):
        return
    offset, length, windows = columns_of(records, 4)[:3]
    # Where a type is smaller than 64 bits, sums are exact in int64. Then a few passes over the
    # columns show that all is right, which saves time with many records.
    if max(offset.itemsize, length.itemsize) < 8:
        ends = np.add(offset, length, dtype=np.int64)
        follow = offset[0] == 0 and np.array_equal(ends[:-1], offset[1:])
        if follow and length.min() > 0 and windows.min() > 0 and ends[-1] <= size:
            return
    offset, length, windows = _signed(offset), _signed(length), _signed(windows)
    ends = offset + length
    right = (length > 0) & (windows > 0) & (ends > offset)
    right &= offset == np.concatenate([[0], ends[:-1]])
    if not right.all():
        number = int(np.argmin(right))
        at = int(ends[number - 1]) if number else 0
        raise ValueError(f"records[{number}] {tuple(records[number])} is not at byte {at}")
    if ends[-1] > size:
        raise ValueError(f"records end at byte {int(ends[-1])}, beyond size {size}")


def check_tails(records: Sequence[RecordEntry], tails: Sequence[TailEntry]) -> None:
    """ValueError where a tail is longer than its record, or empty."""
    lengths = _signed(columns_of(records, 4)[1])
    tail_lengths = _signed(columns_of(tails, 2)[0])
    right = (tail_lengths > 0) & (tail_lengths <= lengths)
    if not right.all():
        number = int(np.argmin(right))
        raise ValueError(
            f"tails[{number}] is {tails[number].length} of {records[number].length} bytes long"
        )


def _signed(column: np.ndarray) -> np.ndarray:
    """As int64. Larger numbers become negative, which no count is, so they are found."""
    return column.astype(np.int64)
