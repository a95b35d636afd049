"""Members of a record: the files of a tar shard that share a basename, as bytes and as arrays.

They are read by an explicit list of extensions, and nothing is ever unpickled. The bytes may come
from anybody, so each format must be exactly as this program writes it: plain tar headers, arrays
that fill their member exactly, pictures that begin as JPEG.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from primus_scale.storage.foreign import reason
from primus_scale.storage.names import check_name, quoted

# Bytes of a member. Members are views of their record: to copy a block of 2 MB takes longer than
# to read it from a file that the system has cached.
Data = bytes | memoryview

_TAR_BLOCK = 512  # bytes of a header; a member is padded to a multiple of it
_SAFETENSORS_TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "BOOL": "|b1"}  # that we write
_NPY_HEADER = re.compile(  # of version 1.0
    rb"\x93NUMPY\x01\x00(?P<length>[\x00-\xff]{2})\{'descr': '(?P<type>[<|][bfiu][1248])', "
    rb"'fortran_order': False, 'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\} *\n"
)


def split_record(data: bytes) -> tuple[str, dict[str, memoryview]]:
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
        info = _tar_header(data, position)
        start = position + _TAR_BLOCK
        key, _, extension = info.name.partition(".")
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


def position_after_pictures(data: bytes) -> int:
    """Where the members after the leading pictures of the record ``data`` begin, in bytes.

    0 where it begins with no picture, or holds nothing else.
    """
    position = 0
    while position < len(data):
        info = _tar_header(data, position)
        if not info.name.endswith(".jpg"):
            return position
        position += _TAR_BLOCK + -(-info.size // _TAR_BLOCK) * _TAR_BLOCK
    return 0


def _tar_header(data: bytes, position: int) -> tarfile.TarInfo:
    """The header at ``position``; ValueError where it is no header of a plain, complete file.

    Headers are read one by one. The library's archive reader would follow chains of headers, take
    sizes and names from extended headers, and stop at a damaged header without an error.
    """
    header = data[position : position + _TAR_BLOCK]
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"byte {position} of it is no valid tar header ({error})") from None
    if info.type != tarfile.REGTYPE:
        raise ValueError(f"member {quoted(info.name)} is not a regular file")
    if info.size < 0 or position + _TAR_BLOCK + info.size > len(data):
        raise ValueError(f"member {quoted(info.name)} has {info.size} bytes, more than the record")
    return info


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

    The library is not used: it allocates as much memory as the header claims, and parses the
    header as Python code.
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
    """Tensors as views of ``data``; the library's loader would copy each tensor.

    The format is 8 bytes with the length of a JSON header, the header, and the tensors, which fill
    the rest without gaps or overlaps.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"its header ends at byte {start} of {len(data)}")
    header = json.loads(bytes(data[8:start]), object_pairs_hook=_unique)
    tensors, taken = {}, []
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        shape, dtype = entry["shape"], np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        if any(type(number) is not int or number < 0 for number in (first, last, *shape)):
            raise ValueError(f"tensor {quoted(name)} has an offset or a width that is no count")
        if first + math.prod(shape) * dtype.itemsize != last:
            raise ValueError(f"tensor {quoted(name)} {shape} is not {last - first} bytes long")
        taken.append((first, last))
        tensors[name] = np.frombuffer(
            memoryview(data)[start + first : start + last], dtype=dtype
        ).reshape(shape)
    ends = [0, *(last for _, last in sorted(taken))]
    if [first for first, _ in sorted(taken)] != ends[:-1] or ends[-1] != len(data) - start:
        raise ValueError("its tensors overlap, or do not fill it")
    return tensors


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
