"""Members of a record: the files of a tar shard that share a basename, as bytes and as arrays.

They are decoded by an explicit list of extensions, and nothing is ever unpickled. The bytes may
come from anybody, so each format must be exactly as this program writes it: plain tar headers,
arrays that fill their member exactly, pictures that begin as JPEG.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from primus_scale.storage.foreign import reason
from primus_scale.storage.names import check_name, quoted

# Bytes of a record or a member. Members are views of their record, not copies: to copy a block of
# 2 MB takes longer than to read it from a file that the system has cached.
Data = bytes | memoryview

_TAR_BLOCK = 512  # bytes of a header; a member is padded to a multiple of it
_SAFETENSORS_TYPES = {  # that we write
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "BOOL": "|b1",
}
_PLAIN_HEADER = re.compile(  # of a regular file, with a short name and its size in octal digits
    rb"(?P<name>[\x21-\x7e]{1,99})\0+[0-7 \0]{24}(?P<size>[0-7]{11})[ \0][0-7 \0]{12}"
    rb"(?P<sum>[0-7]{6})\0 0\0{100}ustar[\x00-\xff]{83}\0{167}"
)
_SUM_AT = slice(148, 156)  # of the checksum in a header, which counts as eight spaces
_NPY_HEADER = re.compile(  # of version 1.0
    rb"\x93NUMPY\x01\x00(?P<length>[\x00-\xff]{2})\{'descr': '(?P<type>[<|][bfiu][1248])', "
    rb"'fortran_order': False, 'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\} *\n"
)


def split_record(data: Data) -> tuple[str, dict[str, memoryview]]:
    """Key and members of the record whose tar bytes are ``data``; members by extension, as views.

    The extension is all that follows the first dot of the file name, as in WebDataset. ValueError
    unless the bytes are complete plain tar members of one record, with different extensions that
    can be read.
    """
    members: dict[str, memoryview] = {}
    view = memoryview(data)
    keys = set()
    position = 0
    while position < len(data):
        info = _tar_header(view, position)
        start = position + _TAR_BLOCK
        key, _, extension = info.name.partition(".")
        if key not in keys:
            keys.add(check_name(key, "a member of the record", plain=True))
        if len(keys) > 1:
            raise ValueError(f"bytes hold the records {sorted(keys)} instead of one")
        if extension in members:
            raise ValueError(f"member {extension} is there twice")
        _check_extension(extension)
        members[extension] = view[start : start + info.size]
        position = start + -(-info.size // _TAR_BLOCK) * _TAR_BLOCK
    if position != len(data):
        raise ValueError(f"its last member ends {position - len(data)} bytes after its end")
    if not keys:
        raise ValueError("it has no member")
    return keys.pop(), members


def position_after_pictures(data: Data) -> int:
    """Where the members after the leading pictures of the record ``data`` begin, in bytes.

    0 where it begins with no picture, or holds nothing else.
    """
    position, view = 0, memoryview(data)
    while position < len(data):
        info = _tar_header(view, position)
        if not info.name.endswith(".jpg"):
            return position
        position += _TAR_BLOCK + -(-info.size // _TAR_BLOCK) * _TAR_BLOCK
    return 0


class _File(NamedTuple):
    """A member's name, and its size in bytes."""

    name: str
    size: int


def _tar_header(data: memoryview, position: int) -> _File:
    """The header at ``position``; ValueError where it is no header of a plain, complete file.

    Headers are read one by one. ``tarfile.open`` would follow chains of headers, take sizes and
    names from extended headers, and stop at a damaged header without an error.
    """
    header = bytes(data[position : position + _TAR_BLOCK])
    file = _parse_plain_header(header) or _parse_any_header(header, position)
    if file.size < 0 or position + _TAR_BLOCK + file.size > len(data):
        raise ValueError(f"member {quoted(file.name)} has {file.size} bytes, more than the record")
    return file


def _parse_plain_header(header: bytes) -> _File | None:
    """What a usual header says, in a tenth of the time of ``tarfile``; None for other headers."""
    found = _PLAIN_HEADER.fullmatch(header)
    if found is None:
        return None
    total = sum(header) - sum(header[_SUM_AT]) + 8 * ord(" ")
    if total != int(found["sum"], 8):
        return None
    return _File(found["name"].decode("ascii"), int(found["size"], 8))


def _parse_any_header(header: bytes, position: int) -> _File:
    """What ``tarfile`` reads in a header; ValueError unless it is of a regular file."""
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"byte {position} of it is no valid tar header ({error})") from None
    if info.type != tarfile.REGTYPE:
        raise ValueError(f"member {quoted(info.name)} is not a regular file")
    return _File(info.name, info.size)


def decode_member(name: str, data: Data) -> Any:
    """Decode one member by its extension: npy, safetensors (views of ``data``); jpg stays encoded.

    ValueError for any other extension and for damaged content.
    """
    decode = _DECODERS[_check_extension(name)]
    try:
        return decode(data)
    except Exception as error:  # libraries raise errors of any kind for damaged bytes
        raise ValueError(f"member {name} is damaged: {reason(error)}") from None


def encode_npy(array: np.ndarray) -> bytes:
    """Content of an npy member."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def encode_tensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Content of a safetensors member."""
    return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()})


def _check_extension(name: str) -> str:
    """The last part of ``name``, by which a member is decoded; ValueError where it is unknown."""
    suffix = name.rpartition(".")[2]
    if suffix not in _DECODERS:
        raise ValueError(f"member {quoted(name)}: extension is none of {sorted(_DECODERS)}")
    return suffix


def _decode_npy(data: Data) -> np.ndarray:
    """The array, which must fill the member.

    ``np.load`` is not used: it allocates as much memory as the header claims, and parses the header
    as Python code.
    """
    header = _NPY_HEADER.match(data)
    if header is None:
        raise ValueError("its header is not that of an array of numbers that numpy saved by rows")
    shape = tuple(int(number) for number in header["shape"].split(b",") if number.strip())
    dtype = np.dtype(header["type"].decode())
    start = 10 + int.from_bytes(header["length"], "little")
    if start != header.end() or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"an array of {dtype} {shape} does not have {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype, offset=start).reshape(shape).copy()


def _decode_safetensors(data: Data) -> dict[str, np.ndarray]:
    """Tensors as views of ``data``; ``safetensors`` would copy each tensor.

    The format is 8 bytes with the length of a JSON header, the header, and the tensors, which fill
    the rest without gaps or overlaps.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"its header ends at byte {start} of {len(data)}")
    return {
        tensor.name: np.frombuffer(
            data, dtype=tensor.dtype, count=tensor.elements, offset=start + tensor.first
        ).reshape(tensor.shape)
        for tensor in _tensor_places(bytes(data[8:start]), len(data) - start)
    }


class _TensorPlace(NamedTuple):
    """A tensor of a safetensors member. first: its first byte, counted from the header's end."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    first: int
    elements: int


@lru_cache(maxsize=64)  # blocks of equally many windows have equal headers
def _tensor_places(header: bytes, length: int) -> tuple[_TensorPlace, ...]:
    """The tensors of a header; ValueError unless they fill ``length`` bytes without gaps."""
    tensors, taken = [], []
    for name, entry in json.loads(header, object_pairs_hook=_unique).items():
        first, last = entry["data_offsets"]
        shape, dtype = entry["shape"], np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        if any(type(number) is not int or number < 0 for number in (first, last, *shape)):
            raise ValueError(f"tensor {quoted(name)} has an offset or a width that is no count")
        count = math.prod(shape)
        if first + count * dtype.itemsize != last:
            raise ValueError(f"tensor {quoted(name)} {shape} is not {last - first} bytes long")
        taken.append((first, last))
        tensors.append(_TensorPlace(name, dtype, tuple(shape), first, count))
    ends = [0, *(last for _, last in sorted(taken))]
    if [first for first, _ in sorted(taken)] != ends[:-1] or ends[-1] != length:
        raise ValueError("its tensors overlap, or do not fill it")
    return tuple(tensors)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key occurs twice."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a name is there twice")
    return tree


def _check_jpeg(data: Data) -> bytes:
    picture = bytes(data)
    if not picture.startswith(b"\xff\xd8\xff"):
        raise ValueError("no JPEG picture")
    return picture


_DECODERS: dict[str, Callable[[Data], Any]] = {
    "npy": _decode_npy,
    "jpg": _check_jpeg,
    "json": lambda data: json.loads(bytes(data)),
    "safetensors": _decode_safetensors,
}
