"""Records: the files of a tar shard that share a basename, and what they mean.

A *window record* holds one window: ``imu.npy``, ``frame00.jpg``, ``frame01.jpg``, ... and
``meta.json``. A *packed record* holds a block of windows as columns: ``block.safetensors`` and
``meta.json`` (a list). Members are decoded by the explicit list of extensions below; nothing in a
shard is ever unpickled.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import TypeAdapter, ValidationError

from primus_scale.sample import NO_LABEL, Window, WindowMeta, hash64

IMU_MEMBER = "imu.npy"
META_MEMBER = "meta.json"
BLOCK_MEMBER = "block.safetensors"
_FRAME_MEMBER = re.compile(r"frame(\d+)\.jpg")
_SAFETENSORS_TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "BOOL": "|b1"}  # those we write
_COLUMNS = {"imu": np.float32, "uid": np.int64, "recording": np.int64, "label": np.int64}

# Bytes of a member. Those of a record are views of it: at 2 MB a block, copying costs more than
# reading from a warm file.
Data = bytes | memoryview


@dataclass
class _Start:
    """All that training reads of a meta; three times quicker than the whole of it."""

    start_s: float


_STARTS = TypeAdapter(list[_Start])
_META = TypeAdapter(WindowMeta)
_METAS = TypeAdapter(list[WindowMeta])


@dataclass(frozen=True)
class Block:
    """Windows of one record, as columns.

    imu ``(N, C, T)`` float32 in SI units; uid, recording (``recording_id``) and label ``(N,)``
    int64, NO_LABEL where unknown; embeddings ``(N, D)`` float16 by modality, L2-normalised and
    zero where absent; present ``(N,)`` bool by modality. meta_json is the record's ``meta.json``.
    frames: JPEG pictures of each window, in blocks made from window records only.
    """

    imu: np.ndarray
    uid: np.ndarray
    recording: np.ndarray
    label: np.ndarray
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)
    meta_json: bytes = b"[]"
    frames: tuple[tuple[bytes, ...], ...] = ()

    def __len__(self) -> int:
        return int(self.imu.shape[0])

    @cached_property
    def metas(self) -> list[WindowMeta]:
        """What is known of each window; parsed when first asked, since training does not ask."""
        return _decode_meta(_METAS, self.meta_json)

    @cached_property
    def start_s(self) -> np.ndarray:
        """When each window starts, ``(N,)`` float64: seconds on its recording's clock."""
        try:
            starts = _STARTS.validate_json(self.meta_json)
        except ValidationError as error:
            raise _explain(error) from None
        if len(starts) != len(self):
            raise ValueError(f"{META_MEMBER} tells of {len(starts)} windows, not of {len(self)}")
        return np.array([start.start_s for start in starts], dtype=np.float64)


def recording_id(meta: WindowMeta) -> int:
    """64-bit identity of the recording that a window was cut from, as a signed integer."""
    return hash64(f"{meta.dataset}\x1f{meta.recording}")


def make_block(
    imu: np.ndarray,
    metas: Sequence[WindowMeta],
    labels: Sequence[str],
    embeddings: Mapping[str, np.ndarray] | None = None,
    present: Mapping[str, np.ndarray] | None = None,
    frames: Sequence[tuple[bytes, ...]] = (),
) -> Block:
    """A block of windows from imu ``(N, C, T)`` and their metas.

    ``labels`` are the class names that label ids index (``ShardIndex.labels``); ValueError for a
    meta whose label is not among them. ``embeddings`` ``(N, D)`` of any float type are kept as
    float16.
    """
    ids: dict[str | None, int] = {name: number for number, name in enumerate(labels)}
    ids[None] = NO_LABEL
    unknown = {meta.label for meta in metas} - set(ids)
    if unknown:
        raise ValueError(f"labels {sorted(map(str, unknown))} are none of {tuple(labels)}")
    return Block(
        imu=np.ascontiguousarray(imu, dtype=np.float32),
        uid=np.array([meta.uid for meta in metas], dtype=np.int64),
        recording=np.array([recording_id(meta) for meta in metas], dtype=np.int64),
        label=np.array([ids[meta.label] for meta in metas], dtype=np.int64),
        embeddings={
            name: np.asarray(e).astype(np.float16) for name, e in (embeddings or {}).items()
        },
        present={name: np.asarray(p, dtype=np.bool_) for name, p in (present or {}).items()},
        meta_json=_dump([asdict(meta) for meta in metas]),
        frames=tuple(frames),
    )


def encode_window(window: Window) -> dict[str, bytes]:
    """Members of a window record, by extension."""
    imu = encode_npy(np.ascontiguousarray(window.imu, dtype=np.float32))
    members = {IMU_MEMBER: imu, META_MEMBER: _dump(asdict(window.meta))}
    for number, frame in enumerate(window.frames):
        members[f"frame{number:02d}.jpg"] = frame
    return members


def encode_npy(array: np.ndarray) -> bytes:
    """Content of an npy member."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def decode_window(members: Mapping[str, Data]) -> Window:
    """The window of a window record; ValueError where a member is missing, foreign or damaged."""
    _require(members, IMU_MEMBER, META_MEMBER)
    frames: dict[int, bytes] = {}
    for name, data in members.items():
        match = _FRAME_MEMBER.fullmatch(name)
        if match:
            frames[int(match[1])] = decode_member(name, data)
        elif name not in (IMU_MEMBER, META_MEMBER):
            raise ValueError(f"member {name} does not belong in a window record")
    imu = decode_member(IMU_MEMBER, members[IMU_MEMBER])
    if imu.dtype != np.float32 or imu.ndim != 2:
        raise ValueError(f"{IMU_MEMBER} is {imu.dtype} {imu.shape}, expected float32 (C, T)")
    return Window(
        imu=imu,
        meta=_decode_meta(_META, members[META_MEMBER]),
        frames=tuple(frames[number] for number in sorted(frames)),
    )


def encode_block(block: Block) -> dict[str, bytes]:
    """Members of a packed record, by extension."""
    tensors = {name: getattr(block, name) for name in _COLUMNS}
    tensors |= {f"embeddings.{name}": value for name, value in block.embeddings.items()}
    tensors |= {f"present.{name}": value for name, value in block.present.items()}
    data = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    return {BLOCK_MEMBER: data, META_MEMBER: block.meta_json}


def decode_block(members: Mapping[str, Data]) -> Block:
    """The block of a packed record; ValueError where a member is missing, foreign or damaged."""
    _require(members, BLOCK_MEMBER, META_MEMBER)
    tensors = decode_member(BLOCK_MEMBER, members[BLOCK_MEMBER])
    for name, dtype in _COLUMNS.items():
        if name not in tensors or tensors[name].dtype != dtype:
            raise ValueError(f"{BLOCK_MEMBER}: tensor {name} of type {np.dtype(dtype)} is missing")
    embeddings, present = {}, {}
    for name in tensors.keys() - _COLUMNS.keys():
        group, _, modality = name.partition(".")
        if group == "embeddings":
            embeddings[modality] = tensors[name]
        elif group == "present":
            present[modality] = tensors[name]
        else:
            raise ValueError(f"{BLOCK_MEMBER}: tensor {name} does not belong in a packed record")
    return Block(
        **{name: tensors[name] for name in _COLUMNS},
        embeddings=embeddings,
        present=present,
        meta_json=bytes(members[META_MEMBER]),
    )


def decode_record(data: bytes) -> dict[str, memoryview]:
    """Members of the record whose tar bytes are ``data``, by extension, as views of ``data``.

    The extension is all that follows the first dot of the file name, as in WebDataset. ValueError
    where the bytes are no tar members, or not those of one record.
    """
    members: dict[str, memoryview] = {}
    view = memoryview(data)
    keys = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                if not info.isreg():
                    raise ValueError(f"member {info.name} is not a regular file")
                key, _, extension = info.name.partition(".")
                keys.add(key)
                members[extension] = view[info.offset_data : info.offset_data + info.size]
    except tarfile.TarError as error:
        raise ValueError(f"record is no valid tar ({error})") from None
    if len(keys) != 1:
        raise ValueError(f"bytes hold the records {sorted(keys)} instead of one")
    return members


def decode_member(name: str, data: Data) -> Any:
    """Decode one member by its extension: npy, safetensors (views of ``data``); jpg stays encoded.

    ValueError for any other extension and for damaged content.
    """
    suffix = name.rpartition(".")[2]
    if suffix not in _DECODERS:
        raise ValueError(f"member {name}: extension is none of {sorted(_DECODERS)}")
    try:
        return _DECODERS[suffix](data)
    except (ValueError, EOFError) as error:
        raise ValueError(f"member {name} is damaged: {error}") from None


def _decode_npy(data: Data) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _decode_safetensors(data: Data) -> dict[str, np.ndarray]:
    """Tensors as views of ``data``; the library's own loader copies each.

    The format: 8 bytes with the length of a JSON header, the header, the tensors.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise ValueError(f"its header ends at byte {start} of {len(data)}")
    header = json.loads(bytes(data[8:start]))
    try:
        return {
            name: np.frombuffer(
                memoryview(data)[start:][slice(*entry["data_offsets"])],
                dtype=_SAFETENSORS_TYPES[entry["dtype"]],
            ).reshape(entry["shape"])
            for name, entry in header.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its header is malformed ({error!r})") from None


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


def _require(members: Mapping[str, Data], *names: str) -> None:
    for name in names:
        if name not in members:
            raise ValueError(f"record has no member {name} (it holds {sorted(members)})")


def _dump(tree: Any) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def _decode_meta(adapter: TypeAdapter[Any], data: Data) -> Any:
    try:
        return adapter.validate_python(decode_member(META_MEMBER, data))
    except ValidationError as error:
        raise _explain(error) from None


def _explain(error: ValidationError) -> ValueError:
    """What is wrong with a ``meta.json``, in one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return ValueError(f"{META_MEMBER}: {where}: {problem['msg']}")
