"""Records: the files of a tar shard that share a basename, as windows and blocks of windows.

A *window record* holds one window: ``imu.npy``, ``frame00.jpg``, ``frame01.jpg``, ... and
``meta.json``. A *packed record* holds a block of windows as columns: ``block.safetensors`` and
``meta.json`` (a list). ``members`` has the formats of the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from primus_scale.counted import counted
from primus_scale.data.members import Data, decode_member, encode_npy, encode_tensors
from primus_scale.sample import NO_LABEL, Window, WindowMeta, hash64
from primus_scale.storage.foreign import reason

IMU_MEMBER = "imu.npy"
META_MEMBER = "meta.json"
BLOCK_MEMBER = "block.safetensors"
ID_COLUMNS = ("uid", "recording", "session", "label")
_COLUMNS = {"imu": np.float32, **dict.fromkeys(ID_COLUMNS, np.int64)}
_START = "start_s"  # a further column, which older shards lack


@dataclass
class _Start:
    """A meta of which only the start time is parsed; all fields would take three times as long."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    start_s: float


_STARTS = TypeAdapter(list[_Start])
_META = TypeAdapter(WindowMeta)
_METAS = TypeAdapter(list[WindowMeta])


@dataclass(frozen=True)
class Block:
    """Windows of one record, as columns.

    imu ``(N, C, T)`` float32 in SI units; uid, recording (``recording_id``), session
    (``session_id``) and label ``(N,)`` int64, NO_LABEL where unknown; embeddings ``(N, D)`` float16
    by modality, L2-normalised and zero where absent; present ``(N,)`` bool by modality. meta_json
    is the record's ``meta.json``. frames: JPEG pictures of each window, in blocks made from window
    records only. starts ``(N,)`` float64: ``start_s`` as a column, which packed records have since
    schema 4; None where it is in the metas only.
    """

    imu: np.ndarray
    uid: np.ndarray
    recording: np.ndarray
    session: np.ndarray
    label: np.ndarray
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)
    meta_json: bytes = b"[]"
    frames: tuple[tuple[bytes, ...], ...] = ()
    starts: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.imu.shape[0])

    def take(self, rows: np.ndarray) -> Block:
        """The windows ``rows``, in that order."""
        metas = json.loads(bytes(self.meta_json))
        return Block(
            **{name: getattr(self, name)[rows] for name in _COLUMNS},
            embeddings={name: value[rows] for name, value in self.embeddings.items()},
            present={name: value[rows] for name, value in self.present.items()},
            meta_json=_dump([metas[row] for row in rows.tolist()]),
            frames=tuple(self.frames[row] for row in rows.tolist()) if self.frames else (),
            starts=None if self.starts is None else self.starts[rows],
        )

    @cached_property
    def metas(self) -> list[WindowMeta]:
        """The meta of each window. Parsed at the first access, since training needs none."""
        return _decode_meta(_METAS, self.meta_json)

    @property
    def start_s(self) -> np.ndarray:
        """Start time of each window, ``(N,)`` float64: seconds on its recording's clock."""
        return self.meta_starts if self.starts is None else self.starts

    @cached_property
    def meta_starts(self) -> np.ndarray:
        """``start_s`` from the metas; ValueError where there is not one meta for each window."""
        starts = _decode_meta(_STARTS, self.meta_json)
        if len(starts) != len(self):
            raise ValueError(
                f"{META_MEMBER} tells of {counted(len(starts), 'window')}, not of {len(self)}"
            )
        return np.array([start.start_s for start in starts], dtype=np.float64)


def recording_id(meta: WindowMeta) -> int:
    """64-bit id of the recording that a window was cut from, as a signed integer."""
    return hash64(f"{meta.dataset}\x1f{meta.recording}")


def session_id(meta: WindowMeta) -> int:
    """64-bit id of the session that a window was cut from, as a signed integer.

    Device and placement are part of it, since they are the mounting.
    """
    return hash64("\x1f".join((meta.dataset, meta.session, meta.device, meta.placement)))


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
        session=np.array([session_id(meta) for meta in metas], dtype=np.int64),
        label=np.array([ids[meta.label] for meta in metas], dtype=np.int64),
        embeddings={
            name: np.asarray(e).astype(np.float16) for name, e in (embeddings or {}).items()
        },
        present={name: np.asarray(p, dtype=np.bool_) for name, p in (present or {}).items()},
        meta_json=_dump([asdict(meta) for meta in metas]),
        frames=tuple(frames),
        starts=np.array([meta.start_s for meta in metas], dtype=np.float64),
    )


def encode_window(window: Window) -> dict[str, bytes]:
    """Members of a window record, by extension."""
    imu = encode_npy(np.ascontiguousarray(window.imu, dtype=np.float32))
    members = {IMU_MEMBER: imu, META_MEMBER: _dump(asdict(window.meta))}
    return members | dict(zip(_frame_names(len(window.frames)), window.frames, strict=True))


def decode_window(members: Mapping[str, Data]) -> Window:
    """The window of a window record; ValueError where a member is missing, foreign or damaged."""
    frames = _frame_names(sum(name.startswith("frame") for name in members))
    _require(members, IMU_MEMBER, META_MEMBER, *frames)
    imu = decode_member(IMU_MEMBER, members[IMU_MEMBER])
    if imu.dtype != np.float32 or imu.ndim != 2:
        raise ValueError(f"{IMU_MEMBER} is {imu.dtype} {imu.shape}, expected float32 (C, T)")
    return Window(
        imu=imu,
        meta=_decode_meta(_META, members[META_MEMBER]),
        frames=tuple(decode_member(name, members[name]) for name in frames),
    )


def encode_block(block: Block) -> dict[str, bytes]:
    """Members of a packed record, by extension."""
    tensors = {name: getattr(block, name) for name in _COLUMNS}
    if block.starts is not None:
        tensors[_START] = block.starts
    tensors |= {f"embeddings.{name}": value for name, value in block.embeddings.items()}
    tensors |= {f"present.{name}": value for name, value in block.present.items()}
    return {BLOCK_MEMBER: encode_tensors(tensors), META_MEMBER: block.meta_json}


def decode_block(members: Mapping[str, Data]) -> Block:
    """The block of a packed record; ValueError where a member is missing, foreign or damaged."""
    _require(members, BLOCK_MEMBER, META_MEMBER)
    tensors = decode_member(BLOCK_MEMBER, members[BLOCK_MEMBER])
    for name, dtype in _COLUMNS.items():
        if name not in tensors or tensors[name].dtype != dtype:
            raise ValueError(f"{BLOCK_MEMBER}: tensor {name} of type {np.dtype(dtype)} is missing")
    if tensors["imu"].ndim != 3:
        raise ValueError(f"{BLOCK_MEMBER}: imu is {tensors['imu'].shape}, expected (N, C, T)")
    embeddings, present = {}, {}
    starts = tensors.get(_START)
    if starts is not None and starts.dtype != np.float64:
        raise ValueError(f"{BLOCK_MEMBER}: tensor {_START} is {starts.dtype}, expected float64")
    for name in tensors.keys() - _COLUMNS.keys() - {_START}:
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
        starts=starts,
    )


def _frame_names(count: int) -> list[str]:
    """Members of a window's pictures, in order."""
    return [f"frame{number:02d}.jpg" for number in range(count)]


def _require(members: Mapping[str, Data], *names: str) -> None:
    """ValueError unless ``members`` are exactly those of ``names``."""
    lacking = [name for name in names if name not in members]
    foreign = sorted(members.keys() - set(names))
    if lacking:
        raise ValueError(f"record has no member {lacking[0]} (it holds {sorted(members)})")
    if foreign:
        raise ValueError(f"member {foreign[0]} does not belong in such a record")


def _dump(tree: Any) -> bytes:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def _decode_meta(adapter: TypeAdapter[Any], data: Data) -> Any:
    try:
        return adapter.validate_json(bytes(data), strict=True)
    except ValidationError as error:
        raise ValueError(f"{META_MEMBER}: {reason(error)}") from None
