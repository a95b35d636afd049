"""The records of a stream of a VRS file, taken from the file as arrays.

    for rows in stream_records("walk.vrs", (1202, 1), {"accelerometer": ("<f4", 3)}):
        rows["accelerometer"]  # (n, 3)

projectaria-tools returns one record at a time, which takes most of the time of an ingestion. The
records of an IMU are not compressed, and the file says where in them a value lies. Where anything
is otherwise, or the chain of records is broken, ``UnusualFileError`` is raised: the library must
read the file, or say what is wrong with it.

Source of the format: the documentation of VRS (facebookresearch.github.io/vrs): "Record Format",
"DataLayout", and the reference of ``vrs::FileFormat``. A file is a header and then records, which
begin with their size. The description record has the tags of each stream. Among these,
``DL:Data:V:0`` is the layout of its data records of version V. Numbers are little-endian.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

Stream = tuple[int, int]  # type and instance
Fields = Mapping[str, tuple[str, int]]  # by name: numpy's type, and how many values

PIECE_BYTES = 2**16  # of the file that are in memory at a time
ROWS_AT_ONCE = 2**14

_FILE = struct.Struct("<8x8xIIqqq24x4s4s")
_RECORD = np.dtype(
    [
        ("size", "<u4"),  # with this header
        ("size_before", "<u4"),
        ("type", "<i4"),
        ("version", "<u4"),
        ("time_s", "<f8"),
        ("instance", "<u2"),
        ("kind", "u1"),
        ("compression", "u1"),
        ("plain_size", "<u4"),
    ]
)
_HEADER = _RECORD.itemsize
_STREAM, _COUNT = struct.Struct("<iH"), struct.Struct("<I")
_DATA = 3  # the kind of records that hold samples
_DESCRIPTION_VERSION = 2
_TYPES = {"?": "Bool", "<i8": "int64_t", "<f4": "float"}  # numpy's, VRS's


class UnusualFileError(Exception):
    """The file, or one of the stream's records, is not as this module expects."""


def stream_records(path: str | Path, stream: Stream, fields: Fields) -> Iterator[np.ndarray]:
    """The ``fields`` of the data records of ``stream``, in order of their times; ``(n,)`` each.

    UnusualFileError, which may be raised after some records, where they must be read otherwise.
    """
    with Path(path).open("rb", buffering=0) as opened:
        file = _RecordFile(opened)
        types: dict[int, np.dtype] = {}
        found: list[np.ndarray] = []
        rows, last_s = 0, -np.inf
        for run in file.runs():
            headers = run.headers
            mine = (headers["type"] == stream[0]) & (headers["instance"] == stream[1])
            mine &= headers["kind"] == _DATA
            if not mine.any():
                continue
            headers = headers[mine]
            times_s = np.append(last_s, headers["time_s"])
            last_s = times_s[-1]
            version = int(headers["version"][0])
            if version not in types:
                types[version] = file.record_type(stream, version, fields)
            fits = types[version].itemsize <= run.contents.itemsize
            alike = (headers["version"] == version).all() and not headers["compression"].any()
            if not (fits and alike and (np.diff(times_s) >= 0).all()):
                raise UnusualFileError("compressed, cut short, or not in order")
            found.append(_cut(run.contents[mine], types[version]))
            rows += len(headers)
            if rows >= ROWS_AT_ONCE:
                yield np.concatenate(found)
                found, rows = [], 0
        if found:
            yield np.concatenate(found)


class _Run(NamedTuple):
    """Records of one size that follow one another; both ``(n,)``, valid until the next run.

    contents: what follows the headers, as bytes; empty where a record is larger than a piece.
    """

    headers: np.ndarray
    contents: np.ndarray


class _RecordFile:
    """An open VRS file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = os.fstat(file.fileno()).st_size
        _, size, _, self._description, self._first, _, _ = _FILE.unpack(self._read(0, _FILE.size))
        if size != _HEADER or self._first <= 0:
            raise UnusualFileError("other headers")

    def runs(self) -> Iterator[_Run]:
        """All records; UnusualFileError where they do not end with the file."""
        piece, first, place = memoryview(b""), 0, self._first
        while place <= self._bytes - _HEADER:
            inside = place - first
            if not 0 <= inside <= len(piece) - _HEADER:
                piece, first, inside = self._piece(place), place, 0
            (size,) = _COUNT.unpack_from(piece, inside)
            if size < _HEADER:
                break
            if inside and inside + size > len(piece):
                piece, first, inside = self._piece(place), place, 0
            most = (len(piece) - inside) // size  # of this size, whole in the piece
            sizes = np.ndarray((max(most, 1),), "<u4", piece, inside, (size,))
            count = len(sizes) if (same := sizes == size).all() else int(same.argmin())
            headers = np.ndarray((count,), _RECORD, piece, inside, (size,))
            content = f"V{size - _HEADER if most else 0}"
            yield _Run(headers, np.ndarray((count,), content, piece, inside + _HEADER, (size,)))
            place += count * size
        if place != self._bytes:
            raise UnusualFileError("the chain of records is broken")

    def record_type(self, stream: Stream, version: int, fields: Fields) -> np.dtype:
        """The type of a data record's content that has ``fields`` where its layout says."""
        try:
            layout = json.loads(self._tags[stream][f"DL:Data:{version}:0"])["data_layout"]
            pieces = {piece["name"]: piece for piece in layout}
            places = {name: _place(pieces[name], *kind) for name, kind in fields.items()}
        except (KeyError, TypeError, ValueError, struct.error, RecursionError) as error:
            raise UnusualFileError(f"another layout ({error})") from error
        formats = [(kind, (count,)) if count > 1 else kind for kind, count in fields.values()]
        return np.dtype({"names": list(fields), "formats": formats, "offsets": [*places.values()]})

    @cached_property
    def _tags(self) -> dict[Stream, dict[str, str]]:
        """The tags that VRS gives each stream."""
        header = np.frombuffer(self._read(self._description, _HEADER), _RECORD)[0]
        if header["version"] != _DESCRIPTION_VERSION or header["compression"]:
            raise UnusualFileError("another version of the description")
        text = _Text(self._read(self._description + _HEADER, int(header["size"]) - _HEADER))
        found = {}
        for _ in range(text.number()):
            stream = text.stream()
            text.tags()  # those of the program that recorded
            found[stream] = text.tags()
        return found

    def _piece(self, place: int) -> memoryview:
        """The bytes from ``place`` on, in memory that is used again."""
        read = os.preadv(self._file.fileno(), [self._memory], place)
        return memoryview(self._memory)[:read]

    @cached_property
    def _memory(self) -> bytearray:
        return bytearray(PIECE_BYTES)

    def _read(self, place: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), max(size, 0), place)
        if len(data) < size:
            raise UnusualFileError("it ends too early")
        return data


class _Text:
    """Reads numbers, streams and tags one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def number(self) -> int:
        (value,) = _COUNT.unpack_from(self._data, self._place)
        self._place += _COUNT.size
        return int(value)

    def stream(self) -> Stream:
        kind, instance = _STREAM.unpack_from(self._data, self._place)
        self._place += _STREAM.size
        return kind, instance

    def tags(self) -> dict[str, str]:
        words = [self._word() for _ in range(2 * self.number())]
        return dict(zip(words[::2], words[1::2], strict=True))

    def _word(self) -> str:
        size = self.number()
        start, self._place = self._place, self._place + size
        if self._place > len(self._data):
            raise ValueError("a text ends behind the record")
        return self._data[start : self._place].decode()


def _place(piece: Mapping[str, object], kind: str, count: int) -> int:
    """Where in a record a piece of its layout begins; ValueError where it is of another type."""
    form = "Value" if count == 1 else "Array"
    same = piece["type"] == f"DataPiece{form}<{_TYPES[kind]}>" and piece.get("size", 1) == count
    offset = piece["offset"]
    if not same or not isinstance(offset, int) or offset < 0:
        raise ValueError(str(piece))
    return offset


def _cut(contents: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Contents of records ``(n,)`` as ``dtype``, which may be shorter."""
    size = contents.itemsize
    return np.ndarray(contents.shape, dtype, contents, 0, (size,))
